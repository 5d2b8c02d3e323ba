"""In which order the faces of a split come, as batches, and how an epoch continues where it was left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from agegender.data.dataset import Batch, FaceDataset, step_seed
from agegender.data.on_device import FacesOnDevice
from agegender.errors import FaultError


class Part(NamedTuple):
    """Which of several processes reads: each batch is dealt out to all of them, in as equal parts as there are."""

    rank: int = 0
    of: int = 1

    def of_batch(self, faces: int) -> slice:
        """Returns which of a batch's faces this process takes; of fewer faces than processes, perhaps none."""
        return slice(self.rank * faces // self.of, (self.rank + 1) * faces // self.of)


class DealtSampler(Sampler[int]):
    """Items in their order; of several processes each takes its part of every batch, and has as many batches.

    Processes that train together must take the same number of steps. One for which a last, small batch leaves nothing
    reads one of its faces all the same; `FaceLoader` says that it doesn't count. (Batch norm counts it: of the running
    statistics, such an epoch's last step is then a little off.)
    """

    def __init__(self, size: int, batch_size: int = 1, part: Part = Part()):  # noqa: B008 - a constant
        """Deals out `size` items in batches of `batch_size`, which all processes share."""
        self.size, self.whole_batch, self.part, self.start = size, batch_size, part, 0

    def order(self) -> NDArray[np.int64]:
        """Returns the order of the items `[size]`, the same in all processes."""
        return np.arange(self.size)

    def __iter__(self) -> Iterator[int]:
        """Yields this process's items, without those that a resumed epoch has already seen."""
        left, self.start = self.order()[self.start :], 0
        return iter(left[self._own(len(left))].tolist())

    def __len__(self) -> int:
        """Returns the number of this process's items of a whole epoch."""
        return len(self._own(self.size))

    def _own(self, size: int) -> NDArray[np.int64]:
        """Returns which of so many items, batch after batch, are for this process."""
        if self.part.of == 1:
            return np.arange(size)
        last = size % self.whole_batch
        batches = np.arange(size - last).reshape(-1, self.whole_batch)
        own = np.arange(size - last, size)[self.part.of_batch(last)]
        if last and not len(own):
            own = np.array([size - 1])
        return np.concatenate((batches[:, self.part.of_batch(self.whole_batch)].ravel(), own))


class ShuffledSampler(DealtSampler):
    """A new order every epoch, a function of seed and epoch only; can start in the middle of one."""

    def __init__(self, size: int, seed: int, batch_size: int = 1, part: Part = Part()):  # noqa: B008
        """Shuffles `size` items."""
        super().__init__(size, batch_size, part)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch's order; Lightning calls this at the start of each."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """Returns the epoch's order."""
        return np.random.default_rng(step_seed(self.seed, self.epoch, 0, "order")).permutation(self.size)


class FaceLoader(DataLoader[Batch]):
    """A DataLoader that reads whole batches itself where it has no workers: nothing to fetch, collate or hand over.

    One that deals batches out to several processes (see `DealtSampler`) says what each batch's part is worth.
    """

    dataset: FaceDataset | FacesOnDevice
    _handed_out = 0  # faces of the epoch, in all processes

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yields the batches, in the sampler's order."""
        # Lightning puts another sampler in for its own purposes (overfit_batches): that one deals nothing out.
        dealt = self.sampler if isinstance(self.sampler, DealtSampler) else None
        self._handed_out = dealt.start if dealt else 0
        for batch in self._from_workers() if self.num_workers else self._read():
            if dealt is None or dealt.part.of == 1:
                self._handed_out += len(batch["row"])
            else:
                whole = min(dealt.whole_batch, dealt.size - self._handed_out)
                own = dealt.part.of_batch(whole)
                batch["share"] = (own.stop - own.start) * dealt.part.of / whole
                self._handed_out += whole
            yield batch

    def _from_workers(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except FaultError as error:  # PyTorch puts the worker's traceback into the message; it ends in ours
            raise FaultError(str(error).strip().rpartition("FaultError: ")[2]) from None
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died with a batch half handed over
            raise FaultError(loader_died(self.num_workers)) from error

    def _read(self) -> Iterator[Batch]:
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

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and how many of its faces were handed out, in all processes together."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "handed_out": self._handed_out}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Makes the next iteration continue from `state`; after a finished epoch, with the next one."""
        if not isinstance(self.sampler, ShuffledSampler):
            return
        finished = state["handed_out"] >= self.sampler.size
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
