"""Metrics of the training, validation and test stages, and their names."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, MulticlassAccuracy
from torchmetrics.utilities import dim_zero_cat

from agegender.distributed.collectives import all_gather_cat

LOSSES = ("loss", "age_loss", "gender_loss")
NAMES = (*LOSSES, "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc")
CLASS_NAMES = ("age_class_acc",)  # of age codings with classes
HIGHER_IS_BETTER = ("age_cs5", "gender_acc", "gender_auroc", *CLASS_NAMES)


class CumulativeScore(Metric):
    """Fraction of predicted ages within `years` of the true age (CS@k), commonly given beside the MAE.

    Introduced by Geng et al., "Automatic Age Estimation Based on Facial Aging Patterns", TPAMI 2007.
    """

    higher_is_better = True
    full_state_update = False
    within: Tensor
    total: Tensor

    def __init__(self, years: float = 5.0, **options: Any):
        """Set the tolerance in years, inclusive."""
        super().__init__(**options)
        self.years = years
        self.add_state("within", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predicted and true ages, both `[batch]` in years."""
        self.within += ((preds - target).abs() <= self.years).sum()
        self.total += target.numel()

    def compute(self) -> Tensor:
        """Return the fraction, from 0 to 1."""
        return self.within / self.total


class NaNAwareAUROC(BinaryAUROC):
    """The area under the ROC curve; NaN for faces of one gender, where torchmetrics returns 0."""

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics annotates the curve's type
        """Return the area, from 0 to 1."""
        target = dim_zero_cat(self.target)
        return super().compute() if target.min() < target.max() else torch.full((), math.nan, device=target.device)


class MeanLosses(Metric):
    """The mean of each of `LOSSES` over faces. NaN propagates (torchmetrics' MeanMetric drops it by default)."""

    higher_is_better = False
    full_state_update = False
    total: Tensor
    faces: Tensor

    def __init__(self, **options: Any) -> None:
        """Initialize the sums."""
        super().__init__(**options)
        self.add_state("total", default=torch.zeros(len(LOSSES)), dist_reduce_fx="sum")
        self.add_state("faces", default=torch.zeros(len(LOSSES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, losses: Tensor, faces: list[int], known: Tensor | None = None) -> None:
        """Add steps' losses `[steps, len(LOSSES)]`, each a mean over a step's faces.

        Args:
            losses: `[steps, len(LOSSES)]`.
            faces: Number of faces of each step.
            known: `[steps, len(LOSSES)]`, number of labels of each loss and step, if labels are missing.
        """
        if known is None:
            self.total += losses.new_tensor(faces) @ losses
            self.faces += sum(faces)
        else:
            self.total += (known * losses).sum(0)
            self.faces += known.sum(0)

    def compute(self) -> Tensor:
        """Return the means `[len(LOSSES)]`; NaN without faces."""
        return self.total / self.faces


class StepOutput(NamedTuple):
    """Losses, predictions and labels of one step, on the device and without gradients.

    Attributes:
        losses: `[3]`, in the order of `LOSSES`: the total and its parts, means over the batch.
        age_pred: `[batch]`, years.
        age: `[batch]`, years; NaN if unknown.
        p_female: `[batch]`.
        gender: `[batch]`, 0 or 1; NaN if unknown.
        age_class_pred: `[batch]`, predicted age class; None if the age coding has no classes.
        age_class: `[batch]`, true age class; likewise.
        known: int64 `[3]`, number of labels that each of `losses` averages; None if no label can be missing.
    """

    losses: Tensor
    age_pred: Tensor
    age: Tensor
    p_female: Tensor
    gender: Tensor
    age_class_pred: Tensor | None = None
    age_class: Tensor | None = None
    known: Tensor | None = None

    def empty(self) -> StepOutput:
        """Return a copy without faces, for a rank whose batch is padding."""
        columns = ("age_pred", "age", "p_female", "gender", "age_class_pred", "age_class")
        present: dict[str, Any] = {name: getattr(self, name) for name in columns if getattr(self, name) is not None}
        known = None if self.known is None else torch.zeros_like(self.known)
        return self._replace(known=known, **{name: column[:0] for name, column in present.items()})


class StageMetrics(nn.Module):
    """The metrics of one stage (train, val or test), accumulated on the device over an epoch.

    `update` only stores the step, and the metrics are updated many steps at a time. The results are the same, and a
    step takes microseconds instead of a millisecond, which matters for a small network on a GPU.

    All ranks take the same number of steps (see `DistributedBatchSlicer`). The steps are gathered, so that each rank's
    metrics cover every face once and need no synchronization of their states.
    """

    STEPS_AT_A_TIME = 256

    def __init__(self, stage: str, classes: int | None = None):
        """Create the metrics, named `stage/...`; with `classes`, also the accuracy of the age class."""
        super().__init__()
        self.stage = stage
        alone: dict[str, Any] = {"sync_on_compute": False}
        self.losses = MeanLosses(**alone)
        self.age = MetricCollection(
            {
                "age_mae": MeanAbsoluteError(**alone),
                "age_mse": MeanSquaredError(**alone),
                "age_cs5": CumulativeScore(5.0, **alone),
            },
            prefix=f"{stage}/",
        )
        self.gender = MetricCollection(
            {
                # validation would synchronize with the device
                "gender_acc": BinaryAccuracy(validate_args=False, **alone),
                "gender_auroc": NaNAwareAUROC(validate_args=False, **alone),
            },
            prefix=f"{stage}/",
        )
        self.age_class = None
        if classes:
            accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False, **alone)
            self.age_class = MetricCollection({"age_class_acc": accuracy}, prefix=f"{stage}/")
        self._set_aside: list[StepOutput] = []

    def update(self, step: StepOutput) -> None:
        """Add a step."""
        self._set_aside.append(step)
        if len(self._set_aside) == self.STEPS_AT_A_TIME:
            self._count()

    def compute(self) -> dict[str, Tensor]:
        """Return the epoch's metrics by name and reset; NaN for metrics without any label.

        Empty without steps: a run can be resumed between an epoch's last step and its validation.
        """
        self._count()
        if not self.losses.update_called:
            return {}
        losses: Tensor = self.losses.compute()
        results = {f"{self.stage}/{name}": loss for name, loss in zip(LOSSES, losses.unbind(), strict=True)}
        for metrics in (self.age, self.gender, self.age_class):
            if metrics is not None:
                counted = any(metric.update_called for metric in metrics.values(copy_state=False))
                missing = dict.fromkeys(map(str, metrics.keys()), losses.new_tensor(math.nan))
                results |= metrics.compute() if counted else missing
        self._reset()
        return results

    def _reset(self) -> None:
        """Reset outside inference mode, so that `fit` after `validate` can update the states in place."""
        with torch.inference_mode(False):
            self.losses.reset()
            for metrics in (self.age, self.gender, self.age_class):
                if metrics is not None:
                    metrics.reset()

    def _count(self) -> None:
        """Update the metrics with the stored steps of all ranks."""
        if not self._set_aside:
            return
        steps, self._set_aside = self._set_aside, []

        def column(name: str) -> Tensor:
            return all_gather_cat(torch.cat([getattr(step, name) for step in steps]))

        counts = [step.known for step in steps if step.known is not None]
        known = all_gather_cat(torch.stack(counts)) if counts else None
        faces = all_gather_cat(torch.tensor([len(step.age) for step in steps], device=steps[0].losses.device))
        self.losses.update(all_gather_cat(torch.stack([step.losses for step in steps])), faces.tolist(), known)
        for metrics, prediction, truth, label in (
            (self.age, "age_pred", "age", "age"),
            (self.gender, "p_female", "gender", "gender"),
            (self.age_class, "age_class_pred", "age_class", "age"),
        ):
            if metrics is not None:
                chosen = slice(None) if known is None else ~column(label).isnan()
                preds, target = column(prediction)[chosen], column(truth)[chosen]
                if len(target):
                    metrics.update(preds, target.int() if truth == "gender" else target)
