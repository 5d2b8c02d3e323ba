"""What is measured, under the names that everything else relies on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, MulticlassAccuracy

LOSSES = ("loss", "age_loss", "gender_loss")
NAMES = (*LOSSES, "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc")
CLASS_NAMES = ("age_class_acc",)  # of age codings with classes
HIGHER_IS_BETTER = ("age_cs5", "gender_acc", "gender_auroc", *CLASS_NAMES)


class CumulativeScore(Metric):
    """Share of ages within `years` of the truth (CS@k): the field's standard companion of the MAE.

    Introduced by Geng et al., "Automatic Age Estimation Based on Facial Aging Patterns", TPAMI 2007.
    """

    higher_is_better = True
    full_state_update = False
    within: Tensor
    total: Tensor

    def __init__(self, years: float = 5.0):
        """Sets the tolerance, in years; an error of exactly that much counts as within."""
        super().__init__()
        self.years = years
        self.add_state("within", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts predicted and true ages, both `[batch]` in years."""
        self.within += ((preds - target).abs() <= self.years).sum()
        self.total += target.numel()

    def compute(self) -> Tensor:
        """Returns the share, from 0 to 1."""
        return self.within / self.total


class MeanLosses(Metric):
    """The mean of each of `LOSSES` over faces. One that is not a number stays so (torchmetrics' own mean drops it)."""

    higher_is_better = False
    full_state_update = False
    total: Tensor
    faces: Tensor

    def __init__(self) -> None:
        """Starts at nothing."""
        super().__init__()
        self.add_state("total", default=torch.zeros(len(LOSSES)), dist_reduce_fx="sum")
        self.add_state("faces", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, losses: Tensor, faces: list[int]) -> None:
        """Adds steps' losses `[steps, len(LOSSES)]`, each the mean over so many faces."""
        self.total += losses.new_tensor(faces) @ losses
        self.faces += sum(faces)

    def compute(self) -> Tensor:
        """Returns the means `[len(LOSSES)]`."""
        return self.total / self.faces


class Step(NamedTuple):
    """What one step measured, on its device and without gradients.

    Attributes:
        losses: `[3]`, those of `LOSSES`: the sum and its parts, means over the batch.
        age_pred: `[batch]`, years.
        age: `[batch]`, years.
        p_female: `[batch]`.
        gender: `[batch]`, 0 or 1.
        age_class_pred: `[batch]`, the age's class as answered; None if the age coding has no classes.
        age_class: `[batch]`, the true one; likewise.
    """

    losses: Tensor
    age_pred: Tensor
    age: Tensor
    p_female: Tensor
    gender: Tensor
    age_class_pred: Tensor | None = None
    age_class: Tensor | None = None


class StageMetrics(nn.Module):
    """The metrics of one stage (train, val or test), accumulated on the device over an epoch.

    A step only sets its tensors aside; they are counted many steps at a time. The figures are the same, and a step
    costs microseconds instead of a millisecond, which a small network on a GPU would notice.
    """

    STEPS_AT_A_TIME = 256

    def __init__(self, stage: str, classes: int | None = None):
        """Names every metric `stage/...`; with `classes`, there is the accuracy of the age's class too."""
        super().__init__()
        self.stage = stage
        self.losses = MeanLosses()
        self.age = MetricCollection(
            {"age_mae": MeanAbsoluteError(), "age_mse": MeanSquaredError(), "age_cs5": CumulativeScore(5.0)},
            prefix=f"{stage}/",
        )
        self.gender = MetricCollection(
            {
                # checking the values would wait for the device
                "gender_acc": BinaryAccuracy(validate_args=False),
                "gender_auroc": BinaryAUROC(validate_args=False),
            },
            prefix=f"{stage}/",
        )
        self.age_class = None
        if classes:
            self.age_class = MulticlassAccuracy(classes, average="micro", validate_args=False)
        self._set_aside: list[Step] = []

    def update(self, step: Step) -> None:
        """Adds a step's losses, answers and truths."""
        self._set_aside.append(step)
        if len(self._set_aside) == self.STEPS_AT_A_TIME:
            self._count()

    def compute(self) -> dict[str, Tensor]:
        """Returns the epoch's figures by name and starts anew."""
        self._count()
        losses: Tensor = self.losses.compute()
        figures = {f"{self.stage}/{name}": loss for name, loss in zip(LOSSES, losses.unbind(), strict=True)}
        figures |= self.age.compute() | self.gender.compute()
        if self.age_class is not None:
            figures[f"{self.stage}/age_class_acc"] = self.age_class.compute()
            self.age_class.reset()
        for metric in (self.losses, self.age, self.gender):
            metric.reset()
        return figures

    def _count(self) -> None:
        """Puts what was set aside into the metrics."""
        if not self._set_aside:
            return
        steps, self._set_aside = self._set_aside, []

        def column(name: str) -> Tensor:
            return torch.cat([getattr(step, name) for step in steps])

        faces = [len(step.age) for step in steps]
        self.losses.update(torch.stack([step.losses for step in steps]), faces)
        self.age.update(column("age_pred"), column("age"))
        self.gender.update(column("p_female"), column("gender").int())
        if self.age_class is not None:
            self.age_class.update(column("age_class_pred"), column("age_class"))
