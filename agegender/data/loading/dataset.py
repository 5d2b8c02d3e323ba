"""Dataset of one split, and the layout of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from agegender.data.augmentation.mixing import Partners
from agegender.data.index.index import FaceIndex, drop_missing
from agegender.data.loading.pixel_cache import DecodeOnRead, MemmapPixels


class Batch(TypedDict):
    """A batch of faces.

    Attributes:
        image: uint8 `[batch, channels, size, size]`, channels last in memory; after augmentation float in [0, 1].
        labels: Name to labels, each float32 `[batch]`: numbers, or positions in the index's `classes`; NaN if missing.
        row: int64 `[batch]`, the faces' rows of the index.
        features: Only with the cached features of a frozen trunk: float32 `[batch, features]`.
        corrupted: Likewise, the features of validation faces changed by `corruptions.corrupt_any`.
        weight: Only with several processes: weight of this rank's part in the mean over the ranks, 1 if all parts have
            one size, 0 if the part only pads the step with a face that counts on another rank.
        partners: Only with mixed images: the second face of each, see `Mixing`.
    """

    image: Tensor
    labels: dict[str, Tensor]
    row: Tensor
    features: NotRequired[Tensor]
    corrupted: NotRequired[Tensor]
    weight: NotRequired[float]
    partners: NotRequired[Partners]


def step_seed(seed: int, epoch: int, step: int, purpose: str, rank: int = 0) -> int:
    """Return the seed of one training step's random numbers on one rank, below 2^63.

    Every random choice of training (order, augmentation, dropout) is a function of the run's seed and its position, not
    of earlier draws. So a resumed run continues exactly, wherever it was stopped.
    """
    hashed = hashlib.sha256(f"{seed}:{epoch}:{step}:{purpose}{f':{rank}' * (rank > 0)}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") >> 1  # 63 bits: torch takes signed integers


class FaceDataset(Dataset[Batch]):
    """Faces of one split. `__getitems__` reads a batch at a time, with one indexed read of the pixels."""

    def __init__(self, index: FaceIndex, rows: NDArray[np.int64], pixels: MemmapPixels | DecodeOnRead):
        """Store the split's rows of the index; `pixels` reads by row of the index."""
        self.index, self.rows, self.pixels = index, rows, pixels

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        """Return a single face as a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int] | Tensor) -> Batch:
        """Return the faces at these positions of the split as one batch (PyTorch calls this once per batch)."""
        rows = self.rows[np.asarray(items)]
        images = torch.from_numpy(self.pixels.read(rows)).permute(0, 3, 1, 2)  # channels last in memory
        return Batch(image=images, labels=self.labels(rows), row=torch.from_numpy(rows))

    def labels(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return every label of rows of the index, each float32; NaN if missing."""
        return {name: torch.from_numpy(column[rows]) for name, column in self.index.labels.items()}

    def known(self, label: str) -> NDArray[np.float32]:
        """Return the split's labels of one kind, without missing ones."""
        column = self.index.labels.get(label)
        return np.zeros(0, np.float32) if column is None else drop_missing(column[self.rows])

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return torch.device("cpu")
