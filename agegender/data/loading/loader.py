"""Samplers and loaders: the order of a split's faces, their division among ranks, and resumption within an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from agegender.data.loading.dataset import Batch, FaceDataset, step_seed
from agegender.data.loading.device_dataset import DeviceDataset
from agegender.errors import SystemFaultError
from agegender.system.signals import blocked


class Rank(NamedTuple):
    """A rank's slice of each global batch; the slices' sizes differ by at most one."""

    rank: int = 0
    world_size: int = 1

    def slice_of(self, faces: int) -> slice:
        """Return this rank's slice of a batch of `faces` faces; may be empty if there are fewer faces than ranks."""
        return slice(self.rank * faces // self.world_size, (self.rank + 1) * faces // self.world_size)


class DistributedBatchSlicer(Sampler[int]):
    """Sequential sampler that gives each rank its slice of every batch, and every rank the same number of batches.

    All ranks must take the same number of steps. A rank whose slice of a small last batch is empty reads one of its
    faces as padding; `FaceDataLoader` gives it the weight zero. (Batch norm still sees it, so the running statistics of
    that step are slightly off.)
    """

    def __init__(self, size: int, batch_size: int = 1, part: Rank = Rank()):  # noqa: B008 - a constant
        """Sample `size` items in global batches of `batch_size`."""
        self.size, self.whole_batch, self.part, self.start = size, batch_size, part, 0

    def order(self) -> NDArray[np.int64]:
        """Return the order of the items `[size]`, the same on all ranks."""
        return np.arange(self.size)

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's items, without those that a resumed epoch has already read."""
        left, self.start = self.order()[self.start :], 0
        return iter(left[self._own(len(left))].tolist())

    def __len__(self) -> int:
        """Return the number of this rank's items in a whole epoch."""
        return len(self._own(self.size))

    def _own(self, size: int) -> NDArray[np.int64]:
        """Return this rank's positions among `size` items, batch after batch."""
        if self.part.world_size == 1:
            return np.arange(size)
        last = size % self.whole_batch
        batches = np.arange(size - last).reshape(-1, self.whole_batch)
        own = np.arange(size - last, size)[self.part.slice_of(last)]
        if last and not len(own):
            own = np.array([size - 1])
        return np.concatenate((batches[:, self.part.slice_of(self.whole_batch)].ravel(), own))


class ResumableShuffleSampler(DistributedBatchSlicer):
    """Shuffling sampler; the order is a function of seed and epoch only, and can start within an epoch."""

    def __init__(self, size: int, seed: int, batch_size: int = 1, part: Rank = Rank()):  # noqa: B008
        """Sample `size` items in random order; see `DistributedBatchSlicer`."""
        super().__init__(size, batch_size, part)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """Return the epoch's order."""
        return np.random.default_rng(step_seed(self.seed, self.epoch, 0, "order")).permutation(self.size)


class FaceDataLoader(DataLoader[Batch]):
    """DataLoader that, without workers, reads whole batches directly, without fetching and collating single items.

    With several ranks (see `DistributedBatchSlicer`) it adds the key `weight` to each batch.
    """

    dataset: FaceDataset | DeviceDataset
    _handed_out = 0  # faces of the epoch, on all ranks together

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches, in the sampler's order."""
        # Lightning may replace the sampler (overfit_batches) by one that doesn't divide batches.
        dealt = self.sampler if isinstance(self.sampler, DistributedBatchSlicer) else None
        self._handed_out = dealt.start if dealt else 0
        for batch in self._from_workers() if self.num_workers else self._read():
            if dealt is None or dealt.part.world_size == 1:
                self._handed_out += len(batch["row"])
            else:
                whole = min(dealt.whole_batch, dealt.size - self._handed_out)
                own = dealt.part.slice_of(whole)
                batch["weight"] = (own.stop - own.start) * dealt.part.world_size / whole
                self._handed_out += whole
            yield batch

    def _from_workers(self) -> Iterator[Batch]:
        try:
            with blocked():  # the workers leave Ctrl-C and SIGTERM to the main process, which ends them
                batches = super().__iter__()
            yield from batches
        except SystemFaultError as error:  # PyTorch's message holds the worker's traceback, which ends with our message
            raise SystemFaultError(str(error).strip().rpartition("FaultError: ")[2]) from None
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # a worker died while it sent a batch
            raise SystemFaultError(worker_died_message(self.num_workers)) from error

    def _read(self) -> Iterator[Batch]:
        assert self.batch_size is not None
        order = torch.tensor(list(self.sampler)).to(self.dataset.device)
        for items in order.split(self.batch_size):  # type: ignore[no-untyped-call]
            batch = self.dataset.__getitems__(items)
            yield _pinned(batch) if self.pin_memory else batch


class ResumableDataLoader(FaceDataLoader):
    """DataLoader with a saved position, so that training resumes exactly from a checkpoint within an epoch.

    Lightning saves and restores `state_dict` with the fit loop. Iteration starts at the first `next`, not at `iter`, so
    that the sampler knows its epoch before any worker reads ahead.
    """

    sampler: ResumableShuffleSampler

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its faces that were read, on all ranks together."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "handed_out": self._handed_out}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Make the next iteration continue from `state`, or start the next epoch if the saved one was finished."""
        if not isinstance(self.sampler, ResumableShuffleSampler):
            return
        finished = state["handed_out"] >= self.sampler.size
        self.sampler.epoch = state["epoch"] + finished
        self.sampler.start = self._handed_out = 0 if finished else state["handed_out"]


def worker_died_message(workers: int) -> str:
    """Return the error message for a dead loader process; `workers` is their number."""
    return (
        "a loader process is gone, perhaps killed by the system for its memory: use fewer with data.num_workers=..., "
        f"or none with data.num_workers=0 (there were {workers})"
    )


def _pinned(batch: Batch) -> Batch:
    """Copy a batch to pinned memory, from which a GPU can copy asynchronously."""
    return {  # type: ignore[return-value]
        name: _pinned(values) if isinstance(values, dict) else values.pin_memory()  # type: ignore[arg-type, attr-defined]
        for name, values in batch.items()
    }
