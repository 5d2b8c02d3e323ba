"""Masked losses, for data in which some faces lack an age or a gender."""

from __future__ import annotations

import torch
from torch import Tensor

from agegender.data.dataset import Batch
from agegender.models.network import AgeGenderNet, Outputs


def known_losses(network: AgeGenderNet, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
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
        chosen = Outputs(outputs.age[genders], outputs.gender[genders])
        gender_loss = network.gender_loss(chosen, batch["gender"][genders])
    return age_loss, gender_loss, torch.stack((torch.ones_like(ages).sum(), ages.sum(), genders.sum()))
