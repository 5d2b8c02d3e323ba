"""One split's faces, and what a batch of them holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from agegender.data.cache import CachedPixels, DecodedPixels
from agegender.data.index import FaceIndex, known
from agegender.data.names import MISSING


class Batch(TypedDict):
    """A batch of faces.

    Attributes:
        image: uint8 `[batch, channels, size, size]`, channels last in memory; after augmentation float in [0, 1].
        age: float32 `[batch]`, years; NaN where it is not known.
        gender: float32 `[batch]`, 0 = male, 1 = female; likewise.
        row: int64 `[batch]`, the face's place in the index.
        features: Only of a frozen trunk whose features are cached: float32 `[batch, features]`.
        corrupted: Likewise, of validation faces that `corruptions.corrupt_any` has changed.
        share: Only where several processes share each batch: what this part of it counts in the mean over the parts,
            1 if all are of one size. Zero for a face that is there for the step's sake, and another's.
    """

    image: Tensor
    age: Tensor
    gender: Tensor
    row: Tensor
    features: NotRequired[Tensor]
    corrupted: NotRequired[Tensor]
    share: NotRequired[float]


def step_seed(seed: int, epoch: int, step: int, purpose: str, rank: int = 0) -> int:
    """Returns the seed of one training step's random numbers; of several processes, each has its own `rank`.

    Every random choice of training (order, augmentation, dropout) is a function of the run's seed and of where it is,
    not of what was drawn before. So a resumed run continues exactly, wherever it was stopped.
    """
    hashed = hashlib.sha256(f"{seed}:{epoch}:{step}:{purpose}{f':{rank}' * (rank > 0)}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") >> 1  # torch takes 63 bits without a sign


class FaceDataset(Dataset[Batch]):
    """One split's faces. Read it a batch at a time: `__getitems__` is one indexed read of the pixels."""

    def __init__(self, index: FaceIndex, rows: NDArray[np.int64], pixels: CachedPixels | DecodedPixels):
        """Keeps the split's rows of the index; `pixels` reads by index row."""
        self.index, self.rows, self.pixels = index, rows, pixels
        self._age, self._gender = (
            np.where(column == MISSING, np.nan, column).astype(np.float32) for column in (index.age, index.gender)
        )

    def __len__(self) -> int:
        """Returns the number of faces."""
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        """Returns a single face as a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int] | Tensor) -> Batch:
        """Returns the faces at these places of the split as one batch (PyTorch's loader calls this once per batch)."""
        rows = self.rows[np.asarray(items)]
        age, gender = self.labels(rows)
        images = torch.from_numpy(self.pixels.read(rows)).permute(0, 3, 1, 2)  # channels last in memory
        return Batch(image=images, age=age, gender=gender, row=torch.from_numpy(rows))

    def labels(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns the ages in years and the genders of faces given by their place in the index, both float32.

        One that is not known is NaN.
        """
        return torch.from_numpy(self._age[rows]), torch.from_numpy(self._gender[rows])

    def known(self, label: Literal["age", "gender"]) -> NDArray[Any]:
        """Returns its faces' ages or genders, without those that are not known."""
        return known((self.index.age if label == "age" else self.index.gender)[self.rows])

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return torch.device("cpu")
