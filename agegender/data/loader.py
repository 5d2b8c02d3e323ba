"""In which order the faces of a split come, as batches, and how an epoch continues where it was left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from agegender.data.dataset import Batch, FaceDataset, step_seed
from agegender.data.on_device import FacesOnDevice
from agegender.errors import FaultError


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


class FaceLoader(DataLoader[Batch]):
    """A DataLoader that reads whole batches itself where it has no workers: nothing to fetch, collate or hand over."""

    dataset: FaceDataset | FacesOnDevice

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields the batches, in the sampler's order."""
        if self.num_workers:
            try:
                yield from super().__iter__()
            except FaultError as error:  # PyTorch puts the worker's traceback into the message; it ends in ours
                raise FaultError(str(error).strip().rpartition("FaultError: ")[2]) from None
            except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died with a batch half handed over
                raise FaultError(loader_died(self.num_workers)) from error
            return
        assert self.batch_size is not None
        order = torch.tensor(list(self.sampler)).to(self.dataset.device)
        for items in order.split(self.batch_size):  # type: ignore[no-untyped-call]
            batch = self.dataset.__getitems__(items)
            yield _pinned(batch) if self.pin_memory else batch


class ResumableLoader(FaceLoader):
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


def loader_died(workers: int) -> str:
    """Returns the line for a loader's process that is gone; `workers` is how many there were."""
    return (
        "a loader process is gone, perhaps killed by the system for its memory: use fewer with data.num_workers=..., "
        f"or none with data.num_workers=0 (there were {workers})"
    )


def _pinned(batch: Batch) -> Batch:
    """Moves a batch to where a GPU fetches it from without holding up the CPU."""
    return {name: values.pin_memory() for name, values in batch.items()}  # type: ignore[return-value, attr-defined]
