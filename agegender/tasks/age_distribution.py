"""Ages as a distribution over years: classes, label distribution learning, and the ordinal regression CORAL."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from agegender.errors import require
from agegender.tasks.number import NumberTask
from agegender.tasks.task import TaskMetric, masked_mean

Decoding = Literal["expectation", "median"]


class _Distribution(NumberTask):
    """One output per age or class of ages: a probability distribution, decoded to its expectation or median.

    The median has the least expected absolute error, the expectation the least expected squared error.
    """

    within = 0.0  # variance inside one class, years squared
    bin_width = 1  # years per output
    decoding: Decoding = "expectation"

    def centers(self, like: Tensor) -> Tensor:
        """Return the age in years `[outputs]` that each output stands for."""
        return torch.arange(self.num_outputs, dtype=like.dtype, device=like.device)

    def value(self, raw: Tensor) -> Tensor:
        """Map logits `[batch, outputs]` to the predicted age `[batch]` in years."""
        return self._expectation(raw) if self.decoding == "expectation" else self._median(raw)

    def _expectation(self, raw: Tensor) -> Tensor:
        # Not a matrix product, which autocast would compute in bfloat16: ages would move in half-year steps.
        return (raw.softmax(1) * self.centers(raw)).sum(1)

    def _median(self, raw: Tensor) -> Tensor:
        """Return the median, with each output's probability spread evenly over its years."""
        probabilities = raw.softmax(1)
        cumulative = probabilities.cumsum(1)
        median_bin = (cumulative < 0.5).sum(1, keepdim=True).clamp(max=self.num_outputs - 1)
        probability = probabilities.gather(1, median_bin)
        within = ((0.5 - cumulative.gather(1, median_bin) + probability) / probability).clamp(0, 1) - 0.5
        return self.centers(raw)[median_bin[:, 0]] + (self.bin_width * within)[:, 0]

    def spread(self, raw: Tensor) -> Tensor:
        """Return the distribution's standard deviation `[batch]` in years."""
        distance = self.centers(raw) - self._expectation(raw).unsqueeze(1)
        return ((raw.softmax(1) * distance.square()).sum(1) + self.within).sqrt()

    def tail(self, raw: Tensor, value: Tensor, std: Tensor, threshold: int) -> Tensor:
        """Return the distribution's probability `[batch]` of the ages from `threshold` on; see `NumberTask.tail`.

        Each output's probability is spread evenly over its whole years. On UTKFace's validation faces it is better
        calibrated than a normal distribution with the calibrated standard deviation: docs/thresholds.md.
        """
        after_last = self.centers(raw) + (self.bin_width + 1) / 2  # the year after the last one of each output
        share = ((after_last - threshold) / self.bin_width).clamp(0, 1)
        return (raw.softmax(1) * share).sum(1).clamp(max=1)  # not a matrix product, as above

    def soft_target(self, raw: Tensor) -> Tensor:
        """Return the distribution `[batch, num_outputs]`."""
        return raw.softmax(1)

    def soft_loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        """Return the mean divergence (a scalar, in nats) from distributions `[batch, num_outputs]`."""
        return functional.kl_div(raw.log_softmax(1), soft, reduction="batchmean")


class BinnedAge(_Distribution):
    """Classes of `bin_width` years each, learned by cross-entropy (in nats, so about ln(classes) at the start).

    The predicted age is by default the expectation over the classes' centers: Rothe et al., "DEX: Deep EXpectation of
    apparent age from a single image", ICCV Workshops 2015.
    """

    def __init__(
        self,
        bin_width: int = 5,
        max_age: int = 100,
        decoding: Decoding = "expectation",
        label: str = "age",
        **number: Any,
    ):
        """Define the classes `0..bin_width-1`, `bin_width..2*bin_width-1`, ..., and a last one from `max_age` up.

        Args:
            bin_width: Years per class.
            max_age: First year of the last class, a multiple of `bin_width`; its center is that of a class of
                `bin_width` years.
            decoding: `expectation` or `median`, see `_Distribution`.
            label: See `Task`.
            **number: See `NumberTask`.

        Raises:
            AgeGenderError: `bin_width` is below 1, or `max_age` is not a multiple of it.
        """
        super().__init__(label, **number)
        require(bin_width >= 1, f"bin_width={bin_width} must be at least 1 year")
        fits = max_age >= bin_width and max_age % bin_width == 0
        require(fits, f"max_age={max_age} must be a multiple of bin_width={bin_width}: the last class starts there")
        self.bin_width, self.decoding = bin_width, decoding
        self.num_outputs = max_age // bin_width + 1
        self.within = (bin_width**2 - 1) / 12  # uniform over whole years

    def bin_of(self, age: Tensor) -> Tensor:
        """Return the class `[batch]`, int64, of ages `[batch]` in years."""
        return (age / self.bin_width).floor().long().clamp(0, self.num_outputs - 1)

    def centers(self, like: Tensor) -> Tensor:
        """Return the classes' centers in years: the mean of the whole years in each."""
        return super().centers(like) * self.bin_width + (self.bin_width - 1) / 2

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the cross-entropy `[batch]` with the true class, in nats."""
        return functional.cross_entropy(raw, self.bin_of(age), reduction="none")

    def decode(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the ages in years and the likeliest classes, each `[batch]`."""
        return super().decode(raw) | {f"{self.name}_bin": raw.argmax(1)}

    def metrics(self) -> dict[str, TaskMetric]:
        """Return those of a number, and the accuracy of the class."""
        from torchmetrics.classification import MulticlassAccuracy  # slow to import: training only

        accuracy = MulticlassAccuracy(self.num_outputs, average="micro", validate_args=False, sync_on_compute=False)
        title = f"{self.name} class accuracy"
        return super().metrics() | {"class_acc": TaskMetric(accuracy, f"{self.name}_bin", title, "{:.2%}", self.bin_of)}


class LabelDistribution(_Distribution):
    """One output per year, learned as a normal distribution around the true age.

    Gao et al., "Deep Label Distribution Learning with Label Ambiguity", IEEE TIP 2017 (the Kullback-Leibler divergence,
    in nats); Gao et al., "Age Estimation Using Expectation of Label Distribution Learning", IJCAI 2018 (the expectation
    as the prediction, and its absolute error as a second part of the loss).
    """

    def __init__(
        self,
        sigma: float = 2.0,
        max_age: int = 120,
        expectation: float = 0.0,
        decoding: Decoding = "expectation",
        label: str = "age",
        **number: Any,
    ):
        """Set the target distribution.

        Args:
            sigma: Standard deviation of the target in years.
            max_age: The highest age; there is one output per year from 0.
            expectation: Weight of the expectation's absolute error, per year; 1 in the paper of 2018.
            decoding: `expectation` or `median`, see `_Distribution`.
            label: See `Task`.
            **number: See `NumberTask`.

        Raises:
            AgeGenderError: A value is out of range.
        """
        super().__init__(label, **number)
        require(sigma > 0, f"sigma={sigma} must be above zero")
        require(max_age >= 1, f"max_age={max_age} must be at least 1 year")
        require(expectation >= 0, f"expectation={expectation} must be at least 0")
        self.sigma, self.num_outputs, self.expectation, self.decoding = sigma, max_age + 1, expectation, decoding

    def target(self, age: Tensor) -> Tensor:
        """Return the target distribution `[batch, outputs]` for ages `[batch]` in years."""
        clamped = age.clamp(0, self.num_outputs - 1).unsqueeze(1)
        return (-((self.centers(age) - clamped) / self.sigma).square() / 2).softmax(1)

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the divergence from the target in nats, plus the weighted absolute error of the expectation.

        Returns:
            `[batch, num_outputs]`, whose sum over the outputs is the loss of a sample.
        """
        loss = functional.kl_div(raw.log_softmax(1), self.target(age), reduction="none")
        if self.expectation:
            error = functional.l1_loss(self._expectation(raw), age, reduction="none")
            loss = loss + self.expectation / self.num_outputs * error.unsqueeze(1)
        return loss


class Coral(NumberTask):
    """One output per year k, the logit of an age above k; outputs share their weights and have a bias each.

    Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks with application to age
    estimation", Pattern Recognition Letters 2020. The loss is the mean over the years, not their sum as in the paper,
    so that it starts near 0.6, about where the gender loss does.
    """

    def __init__(self, max_age: int = 120, label: str = "age", **number: Any):
        """Create one output for each k from 0 to `max_age - 1`.

        Args:
            max_age: The highest age in years.
            label: See `Task`.
            **number: See `NumberTask`.

        Raises:
            AgeGenderError: `max_age` is below 1 year.
        """
        super().__init__(label, **number)
        require(max_age >= 1, f"max_age={max_age} must be at least 1 year")
        self.num_outputs = max_age

    def head(self, in_features: int) -> nn.Module:
        """Return a layer with shared weights, which make the predictions rank-consistent."""
        return _CoralLayer(in_features, self.num_outputs)

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over the years `[batch]`."""
        above = self._above(raw, age)
        return functional.binary_cross_entropy_with_logits(raw, above, reduction="none").mean(1)

    def masked_loss(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Task.masked_loss`."""
        known = ~target.isnan()
        above = self._above(raw, torch.where(known, target, 0.0))
        return masked_mean(functional.binary_cross_entropy_with_logits, raw, above, known)

    def _above(self, raw: Tensor, age: Tensor) -> Tensor:
        years = torch.arange(self.num_outputs, device=age.device)
        return (age.unsqueeze(1) > years).to(raw.dtype)

    def value(self, raw: Tensor) -> Tensor:
        """Map logits `[batch, outputs]` to ages `[batch]`: the number of outputs above even odds.

        This is a whole number, the median of the distribution.
        """
        return (raw > 0).sum(1).to(raw.dtype)

    def spread(self, raw: Tensor) -> Tensor:
        """Return the standard deviation `[batch]` in years of the distribution with these tail probabilities."""
        above = self._tails(raw)
        # P(y = k) = P(y > k - 1) - P(y > k)
        probabilities = functional.pad(above, (1, 0), value=1.0) - functional.pad(above, (0, 1))
        year = torch.arange(self.num_outputs + 1, dtype=raw.dtype, device=raw.device)
        mean = above.sum(1, keepdim=True)  # E[y] is the sum of P(y > k)
        return (probabilities * (year - mean).square()).sum(1).sqrt()

    def _tails(self, raw: Tensor) -> Tensor:
        """Return P(age > k) `[batch, outputs]` for k = 0, 1, ..."""
        # Rank consistency holds for a trained network; before, P(y > k) may rise with k.
        return _cummin(raw.sigmoid())

    def tail(self, raw: Tensor, value: Tensor, std: Tensor, threshold: int) -> Tensor:
        """Return the predicted probability `[batch]` of the ages from `threshold` on; see `NumberTask.tail`."""
        if threshold > self.num_outputs:  # older than the highest age
            return torch.zeros_like(value)
        return self._tails(raw)[:, threshold - 1]


def _cummin(values: Tensor) -> Tensor:
    """Return the cumulative minimum along each row, for values up to 1: ONNX has no `cummin`."""
    reach = 1
    while reach < values.shape[1]:
        values = torch.minimum(values, functional.pad(values[:, :-reach], (reach, 0), value=1.0))
        reach *= 2
    return values


class _CoralLayer(nn.Module):
    """A dense layer whose outputs differ by their biases only."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weights = nn.Linear(inputs, 1, bias=False)
        # From +1 to -1: a new network puts the age above low k and below high ones, rank-consistent from the start.
        self.biases = nn.Parameter(torch.linspace(1, -1, outputs))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.weights(features) + self.biases
        return logits
