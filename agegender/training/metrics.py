"""What is measured, under the names that everything else relies on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, MulticlassAccuracy

NAMES = ("loss", "age_loss", "gender_loss", "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc")
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


class StageMetrics(nn.Module):
    """The metrics of one stage (train, val or test), accumulated on the device over an epoch."""

    def __init__(self, stage: str, classes: int | None = None):
        """Names every metric `stage/...`; with `classes`, there is the accuracy of the age's class too."""
        super().__init__()
        self.stage = stage
        self.age = MetricCollection(
            {"age_mae": MeanAbsoluteError(), "age_mse": MeanSquaredError(), "age_cs5": CumulativeScore(5.0)},
            prefix=f"{stage}/",
        )
        self.gender = MetricCollection(
            {
                # checking the values would wait for the device at every step
                "gender_acc": BinaryAccuracy(validate_args=False),
                "gender_auroc": BinaryAUROC(validate_args=False),
            },
            prefix=f"{stage}/",
        )
        self.age_class = None
        if classes:
            self.age_class = MulticlassAccuracy(classes, average="micro", validate_args=False)

    def update(self, years: Tensor, age: Tensor, p_female: Tensor, gender: Tensor) -> None:
        """Adds a batch of answers and truths, each `[batch]`; ages in years, gender 0 or 1."""
        self.age.update(years, age)
        self.gender.update(p_female, gender.int())

    def compute(self) -> dict[str, Tensor]:
        """Returns the epoch's figures by name and starts anew."""
        figures: dict[str, Tensor] = self.age.compute() | self.gender.compute()
        if self.age_class is not None:
            figures[f"{self.stage}/age_class_acc"] = self.age_class.compute()
            self.age_class.reset()
        self.age.reset()
        self.gender.reset()
        return figures
