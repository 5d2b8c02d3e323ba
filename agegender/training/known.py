"""The losses over the labels that are known: a table may lack an age here and a gender there."""

from __future__ import annotations

import torch
from torch import Tensor

from agegender.data.dataset import Batch
from agegender.models.network import AgeGenderNet, Outputs


def known_losses(network: AgeGenderNet, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the age's loss and gender's, each the mean over the faces whose label is known, and how many those are.

    Where none is, the loss is zero and so is its gradient. Choosing the faces waits for the device: this is for data
    in which something is missing only.

    Returns:
        Two scalars, and int64 `[3]`: the number of faces, of ages and of genders.
    """
    ages, genders = ~batch["age"].isnan(), ~batch["gender"].isnan()
    age_loss, gender_loss = outputs.age.sum() * 0, outputs.gender.sum() * 0
    if ages.any():
        age_loss = network.coding.loss(outputs.age[ages], batch["age"][ages])
    if genders.any():
        chosen = Outputs(outputs.age[genders], outputs.gender[genders])
        gender_loss = network.gender_loss(chosen, batch["gender"][genders])
    return age_loss, gender_loss, torch.stack((torch.ones_like(ages).sum(), ages.sum(), genders.sum()))
