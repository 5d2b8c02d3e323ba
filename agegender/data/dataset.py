"""One split's faces as batches: what a batch holds, and in which order the faces come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from agegender.data.cache import CachedPixels, DecodedPixels
from agegender.data.index import FaceIndex


class Batch(TypedDict):
    """A batch of faces.

    Attributes:
        image: uint8 `[batch, channels, size, size]`, channels last in memory; after augmentation float in [0, 1].
        age: float32 `[batch]`, years.
        gender: float32 `[batch]`, 0 = male, 1 = female.
        row: int64 `[batch]`, the face's place in the index.
    """

    image: Tensor
    age: Tensor
    gender: Tensor
    row: Tensor


def step_seed(seed: int, epoch: int, step: int, purpose: str) -> int:
    """Returns the seed of one training step's random numbers.

    Every random choice of training (order, augmentation, dropout) is a function of the run's seed and of where it is,
    not of what was drawn before. So a resumed run continues exactly, wherever it was stopped.
    """
    hashed = hashlib.sha256(f"{seed}:{epoch}:{step}:{purpose}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") >> 1  # torch takes 63 bits without a sign


class FaceDataset(Dataset[Batch]):
    """One split's faces. Read it a batch at a time: `__getitems__` is one indexed read of the pixels."""

    def __init__(self, index: FaceIndex, rows: NDArray[np.int64], pixels: CachedPixels | DecodedPixels):
        """Keeps the split's rows of the index; `pixels` reads by index row."""
        self.index, self.rows, self.pixels = index, rows, pixels

    def __len__(self) -> int:
        """Returns the number of faces."""
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        """Returns a single face as a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int]) -> Batch:
        """Returns the faces at these places of the split as one batch (PyTorch's loader calls this once per batch)."""
        rows = self.rows[np.asarray(items)]
        return Batch(
            image=torch.from_numpy(self.pixels.read(rows)).permute(0, 3, 1, 2),  # channels last in memory
            age=torch.from_numpy(self.index.age[rows].astype(np.float32)),
            gender=torch.from_numpy(self.index.gender[rows].astype(np.float32)),
            row=torch.from_numpy(rows),
        )


class ShuffledSampler(Sampler[int]):
    """A new order every epoch, a function of seed and epoch only; can start in the middle of one."""

    def __init__(self, size: int, seed: int):
        """Shuffles `size` items."""
        self.size, self.seed, self.epoch, self.start = size, seed, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch's order; Lightning calls this at the start of each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yields the order, without the items that a resumed epoch has already seen."""
        order = np.random.default_rng(step_seed(self.seed, self.epoch, 0, "order")).permutation(self.size)
        start, self.start = self.start, 0
        return iter(order[start:].tolist())

    def __len__(self) -> int:
        """Returns the number of items of a whole epoch."""
        return self.size


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader that says where it is, so that a checkpoint in the middle of an epoch can be continued exactly.

    Lightning saves and restores `state_dict` with the fit loop. Iteration starts at the first `next`, not at `iter`, so
    that the sampler knows its epoch before any worker reads ahead.
    """

    sampler: ShuffledSampler
    _handed_out = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields the rest of the epoch's batches."""
        # Lightning puts another sampler in for its own purposes (overfit_batches): that one starts at the beginning.
        self._handed_out = self.sampler.start if isinstance(self.sampler, ShuffledSampler) else 0
        for batch in super().__iter__():
            self._handed_out += len(batch["row"])
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and how many of its faces were handed out."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "handed_out": self._handed_out}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Makes the next iteration continue from `state`; after a finished epoch, with the next one."""
        if not isinstance(self.sampler, ShuffledSampler):
            return
        finished = state["handed_out"] >= len(self.sampler)
        self.sampler.epoch = state["epoch"] + finished
        self.sampler.start = self._handed_out = 0 if finished else state["handed_out"]
