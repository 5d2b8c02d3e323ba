"""Soft targets: teachers' predictions for the training faces, and the distillation loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from agegender.models.network import MultiTaskNet, RawOutputs


class SoftTargets:
    """Age distributions and probabilities of the training faces, and the soft part of the loss.

    See `distillation.py` for the method. They are not part of a module's state: a resumed run reads the cache.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        ages: NDArray[np.floating[Any]],
        p_female: NDArray[np.floating[Any]],
        teachers: Sequence[str] = (),
        teacher: float = 0.7,
    ):
        """Set the targets.

        Args:
            rows: `[faces]`, rows of the index.
            ages: `[faces, years]`, distributions.
            p_female: `[faces]`, probabilities.
            teachers: SHA-256 of the teachers' checkpoints.
            teacher: `loss.teacher`, the weight of the soft loss; that of the labels is 1 minus this.
        """
        self.teachers, self.weight = sorted(teachers), teacher
        places = torch.full((int(rows.max()) + 1,), len(rows))  # unknown rows map out of range, an error
        places[torch.from_numpy(rows)] = torch.arange(len(rows))
        soft = torch.from_numpy(ages.astype(np.float16)), torch.from_numpy(p_female.astype(np.float32))
        self._tensors: tuple[Tensor, ...] = (places, *soft)

    def lookup(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return distributions `[batch, years]` and p_female `[batch]` for rows of the index `[batch]`."""
        if self._tensors[0].device != rows.device:
            self._tensors = tuple(tensor.to(rows.device) for tensor in self._tensors)
        places, ages, p_female = self._tensors
        chosen = places[rows]
        distributions = ages[chosen].float()
        return distributions / distributions.sum(1, keepdim=True), p_female[chosen]  # normalized again: float16 rounds

    def losses(self, network: MultiTaskNet, outputs: RawOutputs, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the age divergence from the teachers and the gender cross-entropy with them, scalars in nats.

        Args:
            network: The student.
            outputs: Its raw outputs.
            rows: `[batch]`, the faces' rows of the index.
        """
        ages, p_female = self.lookup(rows)
        age_loss = functional.kl_div(outputs.age.log_softmax(1), ages, reduction="batchmean")
        return age_loss, network.gender_loss(outputs, p_female)

    def mixed(self, labels: Tensor, soft: Tensor) -> Tensor:
        """Return the weighted mean of the label loss and the soft loss."""
        return (1 - self.weight) * labels + self.weight * soft
