"""What teachers answer for the training faces, looked up at each step, and the loss of a network that differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from agegender.models.network import AgeGenderNet, Outputs


class SoftTargets:
    """Age distributions and probabilities of the training faces, and the soft part of the loss.

    See `distillation.py` for the method. They are no part of a module's state: a resumed run reads them from the cache
    again.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        ages: NDArray[np.floating[Any]],
        p_female: NDArray[np.floating[Any]],
        teachers: Sequence[str] = (),
        teacher: float = 0.7,
    ):
        """Keeps the targets.

        Args:
            rows: `[faces]`, their places in the index.
            ages: `[faces, years]`, distributions.
            p_female: `[faces]`.
            teachers: Digests of the teachers' checkpoints.
            teacher: `loss.teacher`, the soft loss's weight; the labels' is the rest of 1.
        """
        self.teachers, self.weight = sorted(teachers), teacher
        places = torch.full((int(rows.max()) + 1,), len(rows))  # a row that is not among them is an error
        places[torch.from_numpy(rows)] = torch.arange(len(rows))
        soft = torch.from_numpy(ages.astype(np.float16)), torch.from_numpy(p_female.astype(np.float32))
        self._tensors: tuple[Tensor, ...] = (places, *soft)

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns distributions `[batch, years]` and p_female `[batch]` for places in the index `[batch]`."""
        if self._tensors[0].device != rows.device:
            self._tensors = tuple(tensor.to(rows.device) for tensor in self._tensors)
        places, ages, p_female = self._tensors
        chosen = places[rows]
        wanted = ages[chosen].float()
        return wanted / wanted.sum(1, keepdim=True), p_female[chosen]  # float16 has rounded each share

    def losses(self, network: AgeGenderNet, outputs: Outputs, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the age's divergence from the teachers and gender's cross-entropy with them, scalars in nats.

        Args:
            network: The student.
            outputs: Its answers.
            rows: `[batch]`, the faces' places in the index.
        """
        ages, p_female = self.of(rows)
        age_loss = functional.kl_div(outputs.age.log_softmax(1), ages, reduction="batchmean")
        return age_loss, network.gender_loss(outputs, p_female)

    def mixed(self, labels: Tensor, soft: Tensor) -> Tensor:
        """Returns the loss of the labels and that of the teachers as one."""
        return (1 - self.weight) * labels + self.weight * soft
