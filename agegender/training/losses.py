"""The weighted sum of the tasks' losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MultiTaskLoss(nn.Module):
    """The sum of the tasks' losses times their weights; with `learned`, each divided by a learned variance.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
    CVPR 2018: each part L becomes `exp(-s) L + s / 2`, with s the logarithm of its variance, initially 0. (Their form
    for classification likelihoods, such as cross-entropies and divergences; regression losses are treated alike.)
    """

    def __init__(self, weights: Sequence[float], learned: bool = False):
        """Set the weights, one for each task."""
        super().__init__()
        self.weights = tuple(weights)
        self.log_variance = nn.Parameter(torch.zeros(len(self.weights))) if learned else None

    def forward(self, losses: Sequence[Tensor], labeled: Tensor) -> Tensor:
        """Return the total loss, a scalar.

        Args:
            losses: The loss of each task, scalars.
            labeled: Bool `[tasks]`, whether the batch has a label of the task; else its variance doesn't change.
        """
        parts = torch.stack([weight * loss for weight, loss in zip(self.weights, losses, strict=True)])
        if self.log_variance is not None:
            parts = parts * torch.exp(-self.log_variance) + self.log_variance / 2 * labeled
        return parts.sum()
