"""Soft targets: teachers' predictions for the training faces, and the distillation loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agegender.models.network import MultiTaskNet, RawOutputs


class SoftTargets:
    """Distributions of each task for the training faces, and the soft part of the loss.

    See `teachers.py` for the method. They are not part of a module's state: a resumed run reads the cache.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        targets: Mapping[str, NDArray[np.floating[Any]]],
        teachers: Sequence[str] = (),
        teacher: float = 0.7,
    ):
        """Set the targets.

        Args:
            rows: `[faces]`, rows of the index.
            targets: Name of each task to its distributions `[faces, k]`, see `Task.soft_target`.
            teachers: SHA-256 of the teachers' checkpoints.
            teacher: `loss.teacher`, the weight of the soft loss; that of the labels is 1 minus this.
        """
        self.teachers, self.weight = sorted(teachers), teacher
        self._places = torch.full((int(rows.max()) + 1,), len(rows))  # unknown rows map out of range, an error
        self._places[torch.from_numpy(rows)] = torch.arange(len(rows))
        # one probability in full precision; distributions over many classes in half, to save memory
        self._targets = {
            name: torch.from_numpy(soft.astype(np.float32 if soft.shape[1] == 1 else np.float16))
            for name, soft in targets.items()
        }

    def lookup(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the distributions of each task, float32 `[batch, k]`, for rows of the index `[batch]`."""
        if self._places.device != rows.device:
            self._places = self._places.to(rows.device)
            self._targets = {name: soft.to(rows.device) for name, soft in self._targets.items()}
        chosen = self._places[rows]
        found = {name: soft[chosen].float() for name, soft in self._targets.items()}
        # normalized again: float16 rounds
        return {name: soft if soft.shape[1] == 1 else soft / soft.sum(1, keepdim=True) for name, soft in found.items()}

    def losses(self, network: MultiTaskNet, raw: RawOutputs, rows: Tensor) -> list[Tensor]:
        """Return the loss of each task against the teachers' distributions, scalars in nats.

        Args:
            network: The student.
            raw: Its raw outputs.
            rows: `[batch]`, the faces' rows of the index.
        """
        targets = self.lookup(rows)
        return [task.soft_loss(raw[name], targets[name]) for name, task in network.each_task()]

    def mixed(self, labels: Tensor, soft: Tensor) -> Tensor:
        """Return the weighted mean of the label loss and the soft loss."""
        return (1 - self.weight) * labels + self.weight * soft
