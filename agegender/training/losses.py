"""The age and gender losses: their weighted sum, and masks for missing labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agegender.data.loading.dataset import Batch
from agegender.errors import require
from agegender.models.network import AgeGenderNet, RawOutputs


class MultiTaskLoss(nn.Module):
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


def known_losses(network: AgeGenderNet, outputs: RawOutputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the age and gender losses, each the mean over the faces with that label, and the numbers of labels.

    Without any label, a loss and its gradient are zero. Masking synchronizes with the device, so this is only used for
    data with missing labels.

    Returns:
        Age loss and gender loss (scalars), and int64 `[3]`: the numbers of faces, ages and genders.
    """
    ages, genders = ~batch["age"].isnan(), ~batch["gender"].isnan()
    age_loss, gender_loss = outputs.age.sum() * 0, outputs.gender.sum() * 0
    if ages.any():
        age_loss = network.coding.loss(outputs.age[ages], batch["age"][ages])
    if genders.any():
        chosen = RawOutputs(outputs.age[genders], outputs.gender[genders])
        gender_loss = network.gender_loss(chosen, batch["gender"][genders])
    return age_loss, gender_loss, torch.stack((torch.ones_like(ages).sum(), ages.sum(), genders.sum()))
