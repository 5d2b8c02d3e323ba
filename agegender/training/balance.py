"""The weighted sum of the age and gender losses, with fixed or learned weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agegender.errors import require


class Balance(nn.Module):
    """`age * age_loss + gender * gender_loss`; with `learned`, each part divided by a learned variance.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
    CVPR 2018: each part L becomes `exp(-s) L + s / 2`, with s the logarithm of its variance, initially 0. (Their form
    for classification likelihoods, such as cross-entropies and divergences; regression losses are treated alike.)
    """

    def __init__(self, age: float = 1.0, gender: float = 1.0, learned: bool = False):
        """Set the weights.

        Raises:
            AgeGenderError: A weight is negative, or both are zero.
        """
        super().__init__()
        fits = min(age, gender) >= 0 and age + gender > 0
        require(fits, f"loss.age={age} and loss.gender={gender} must be at least 0, one of them above")
        self.age, self.gender = age, gender
        self.log_variance = nn.Parameter(torch.zeros(2)) if learned else None

    def forward(self, age_loss: Tensor, gender_loss: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the total loss, a scalar.

        Args:
            age_loss: The age loss, a scalar.
            gender_loss: The gender loss, a scalar.
            known: `[3]`, see `known_losses`; a part without any label doesn't change its variance.
        """
        if self.log_variance is None:
            return self.age * age_loss + self.gender * gender_loss
        parts = torch.stack((self.age * age_loss, self.gender * gender_loss))
        half = self.log_variance / 2 if known is None else self.log_variance / 2 * (known[1:] > 0)
        return (parts * torch.exp(-self.log_variance) + half).sum()
