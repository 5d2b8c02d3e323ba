"""Metrics that torchmetrics lacks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC
from torchmetrics.utilities import dim_zero_cat


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
    """The area under the ROC curve; NaN for samples of one class, where torchmetrics returns 0."""

    def compute(self) -> Tensor:  # type: ignore[override]  # torchmetrics annotates the curve's type
        """Return the area, from 0 to 1."""
        target = dim_zero_cat(self.target)
        return super().compute() if target.min() < target.max() else torch.full((), math.nan, device=target.device)
