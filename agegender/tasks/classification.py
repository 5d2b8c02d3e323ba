"""Tasks whose label is a class: two classes with one probability, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from agegender.errors import require
from agegender.system.csv_escape import is_plain
from agegender.tasks.confidence import ClassCalibration, fit_confidence
from agegender.tasks.info import Kind, TaskInfo
from agegender.tasks.task import Floats, Task, TaskMetric, masked_mean

_PLAIN: dict[str, Any] = {"validate_args": False, "sync_on_compute": False}  # validation would synchronize with a GPU


class _Classification(Task):
    """The common part: classes, calibration of their probabilities, and the baseline."""

    calibration_type = ClassCalibration
    calibration: ClassCalibration | None

    def __init__(self, label: str, classes: Sequence[str], weight: float = 1.0):
        super().__init__(label, weight)
        names = tuple(str(name) for name in classes)
        distinct = len({name.casefold() for name in names}) == len(names) and all(map(is_plain, names)) and all(names)
        require(
            distinct,
            f"classes={list(names)} must be different printable names, without a sign of a formula at the start",
        )
        self.classes = names

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def _columns(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def info(self) -> TaskInfo:
        """The probabilities, and the confidence below which a class is `unsure`."""
        columns = self._columns()
        chance = 1 / len(self.classes)
        return TaskInfo(
            name=self.name,
            kind=self.kind,
            label=self.label,
            columns=columns,
            digits=(4,) * len(columns),
            classes=self.classes,
            min_confidence=chance if self.calibration is None else self.calibration.min_confidence,
        )

    def baseline(self, train: Floats, test: Floats) -> dict[str, float]:
        """Return the accuracy of the most frequent training class on the test labels."""
        majority = np.bincount(train.astype(int), minlength=len(self.classes)).argmax()
        return {"acc": float((test == majority).mean())}

    def fit_calibration(self, inputs: Floats, target: Floats, corrupted: Floats) -> None:
        """Fit temperature and confidence to the faces as they are; see `fit_confidence`.

        There is no calibration if a logit is not finite, because the network has diverged, or without a label.
        """
        known, finite = np.isfinite(target), bool(np.isfinite(inputs).all())
        self.calibration = fit_confidence(inputs[known], target[known]) if known.any() and finite else None


class Binary(_Classification):
    """Two classes, learned by the binary cross-entropy: one output, the logit of the second class."""

    kind: ClassVar[Kind] = "binary"
    num_outputs = 1

    def __init__(
        self,
        label: str,
        classes: Sequence[str],
        weight: float = 1.0,
        column: str | None = None,
        output: Literal["logit", "sigmoid"] = "logit",
    ):
        """Set the classes.

        Args:
            label: See `Task`.
            classes: Names of the two classes, in the order of their codes 0 and 1.
            weight: See `Task`.
            column: Name of the probability of `classes[1]`; None for `p_<name>`.
            output: `logit`, or `sigmoid`: the network outputs a probability, and the loss is Keras's cross-entropy of
                the clipped probability, whose gradient is zero for a face whose logit is wrong by more than 16.

        Raises:
            AgeGenderError: There are not two different classes.
        """
        super().__init__(label, classes, weight)
        require(len(self.classes) == 2, f"classes={list(self.classes)} must be two: use Multiclass for more")
        self.column, self.output = column, output

    def _columns(self) -> tuple[str, ...]:
        return (self.column or f"p_{self.name}",)

    def activation(self, outputs: Tensor) -> Tensor:
        """Return logits or probabilities, see `output`."""
        return outputs.sigmoid() if self.output == "sigmoid" else outputs

    def logit(self, raw: Tensor) -> Tensor:
        """Return the uncalibrated logit of the second class `[batch]`."""
        return raw[:, 0].logit(eps=1e-7) if self.output == "sigmoid" else raw[:, 0]

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy `[batch]` in nats for targets from 0 to 1."""
        loss: Tensor = self._cross_entropy(raw[:, 0], target, reduction="none")
        return loss

    def masked_loss(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """See `Task.masked_loss`."""
        known = ~target.isnan()
        return masked_mean(self._cross_entropy, raw[:, 0], torch.where(known, target, 0.0), known)

    def _cross_entropy(self, raw: Tensor, target: Tensor, **options: Any) -> Tensor:
        if self.output == "logit":
            return functional.binary_cross_entropy_with_logits(raw, target, **options)
        with torch.autocast(raw.device.type, enabled=False):  # supported in float32 only
            # Keras's bounds. Keras on TensorFlow uses the logit of a sigmoid layer instead: `output=logit`.
            return functional.binary_cross_entropy(raw.clamp(1e-7, 1 - 1e-7), target, **options)

    def decode(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the probability of the second class `[batch]`, calibrated if there is a calibration."""
        return {self._columns()[0]: (self.logit(raw) / self.temperature).sigmoid()}

    def metrics(self) -> dict[str, TaskMetric]:
        """Return the accuracy and the area under the ROC curve."""
        from torchmetrics.classification import BinaryAccuracy  # slow to import: training only

        from agegender.tasks.metrics import NaNAwareAUROC

        source = self._columns()[0]
        return {
            "acc": TaskMetric(BinaryAccuracy(**_PLAIN), source, f"{self.name} accuracy", "{:.2%}", Tensor.int),
            "auroc": TaskMetric(NaNAwareAUROC(**_PLAIN), source, f"{self.name} AUROC", "{:.4f}", Tensor.int, 2),
        }

    def calibration_inputs(self, raw: Tensor) -> Tensor:
        """Return the logits `[batch, 1]`."""
        return self.logit(raw).unsqueeze(1)

    def soft_target(self, raw: Tensor) -> Tensor:
        """Return the probability of the second class `[batch, 1]`."""
        return self.decode(raw)[self._columns()[0]].unsqueeze(1)

    def soft_loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        """Return the mean cross-entropy with probabilities `[batch, 1]`, in nats."""
        return self.loss(raw, soft[:, 0]).mean()


class Multiclass(_Classification):
    """Several classes, learned by the cross-entropy: one logit for each."""

    kind: ClassVar[Kind] = "classes"

    def __init__(self, label: str, classes: Sequence[str], weight: float = 1.0):
        """Set the classes.

        Args:
            label: See `Task`.
            classes: Names of the classes, in the order of their codes 0, 1, ...
            weight: See `Task`.

        Raises:
            AgeGenderError: There are fewer than two different classes.
        """
        super().__init__(label, classes, weight)
        require(len(self.classes) > 1, f"classes={list(self.classes)} must be at least two")
        self.num_outputs = len(self.classes)

    def _columns(self) -> tuple[str, ...]:
        return tuple(f"p_{self.name}_{each}" for each in self.classes)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy `[batch]` in nats."""
        return functional.cross_entropy(raw, target.long(), reduction="none")

    def decode(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the predicted class `[batch]`, int64, and the probabilities, each `[batch]`, calibrated."""
        probabilities = (raw / self.temperature).softmax(1)
        return {self.name: raw.argmax(1), **dict(zip(self._columns(), probabilities.unbind(1), strict=True))}

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the probabilities, each `[batch]`, calibrated."""
        decoded = self.decode(raw)
        return {column: decoded[column] for column in self._columns()}

    def metrics(self) -> dict[str, TaskMetric]:
        """Return the accuracy."""
        from torchmetrics.classification import MulticlassAccuracy  # slow to import: training only

        accuracy = MulticlassAccuracy(len(self.classes), average="micro", **_PLAIN)
        return {"acc": TaskMetric(accuracy, self.name, f"{self.name} accuracy", "{:.2%}", Tensor.long)}

    def calibration_inputs(self, raw: Tensor) -> Tensor:
        """Return the logits `[batch, classes]`."""
        return raw

    def soft_target(self, raw: Tensor) -> Tensor:
        """Return the probabilities `[batch, classes]`."""
        return (raw / self.temperature).softmax(1)

    def soft_loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        """Return the mean divergence (a scalar, in nats) from distributions `[batch, classes]`."""
        return functional.kl_div(raw.log_softmax(1), soft, reduction="batchmean")
