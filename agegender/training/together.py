"""Several processes that train as one: how they find each other, agree, count together, and end together."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from agegender.errors import InterruptedRunError, require
from agegender.files import one_at_a_time
from agegender.launched import launched

T = TypeVar("T")


def several() -> bool:
    """Whether this process has joined others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def first() -> bool:
    """Whether this process is the one that writes: the only one, or the first of several."""
    launch = launched()
    return launch is None or launch.rank == 0


def check_launch(trainer: pl.Trainer, multirun: bool, batch_size: int) -> None:
    """Refuses a Trainer that doesn't fit how this process was started.

    Args:
        trainer: Built from the settings.
        multirun: Whether Hydra runs this as one of several jobs.
        batch_size: Faces per step, of all devices.

    Raises:
        AgeGenderError: A multirun on several devices, processes that would train side by side without knowing of each
            other, more machines than anything was started on, or batches that can't be shared equally.
    """
    launch = launched()
    devices = f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes}"
    require(
        not multirun or (trainer.world_size == 1 and launch is None),
        f"{devices} in a multirun (-m): each of the processes would start the whole sweep again. Sweep with "
        "trainer.devices=1, or start each training by itself, without -m",
    )
    if launch is not None and launch.processes is not None:
        wanted = f"trainer=ddp trainer.devices={launch.per_node or '<processes on each machine>'}"
        nodes = launch.processes // launch.per_node if launch.per_node else 1
        require(
            trainer.world_size == launch.processes,
            f"{launch.by} started {launch.processes} processes, but the settings say {devices}: set "
            f"{wanted} trainer.num_nodes={nodes}",
        )
    require(
        launch is not None or trainer.num_nodes == 1,
        f"trainer.num_nodes={trainer.num_nodes}, but this process was started alone: start one on each machine, with "
        "torchrun or srun (docs/launching.md)",
    )
    require(
        batch_size % trainer.world_size == 0,
        f"data.batch_size={batch_size} is what all {trainer.world_size} devices share at a step: set a multiple of "
        f"{trainer.world_size}",
    )


def join(trainer: pl.Trainer) -> None:
    """Joins the other processes if they are there: Lightning's own are started with the training only.

    All but the first log nothing from here on.
    """
    launch = launched()
    if launch is None:
        return
    if launch.rank:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
    trainer.strategy.setup_environment()


@contextmanager
def in_turn(cache_dir: Path) -> Iterator[None]:
    """Lets one process at a time download, read and decode: the first does it, and the others find it done.

    A barrier would do as well, but it gives up after half an hour.

    Args:
        cache_dir: Where what they find is.
    """
    if launched() is None:
        yield
        return
    with one_at_a_time(cache_dir / "several", "another process is reading the images: waiting for it"):
        yield


def wait_for_others() -> None:
    """Waits for the others before the training, where all were started at once; Lightning's own come later."""
    launch = launched()
    if launch is not None and launch.by != "Lightning":
        dist.barrier()


def gathered(values: Tensor) -> Tensor:
    """Returns the rows of all processes' tensors, those of the first process first; alone, the tensor as it is.

    Args:
        values: `[n, ...]`, n differing between processes, zero included.
    """
    return torch.cat(gather_all_tensors(values)) if several() else values


def added_up(values: Tensor) -> Tensor:
    """Returns the sum over all processes' tensors; alone, the tensor as it is."""
    if several():
        values = values.clone()
        dist.all_reduce(values)
    return values


class Vote:
    """Asks all processes a question at every step, on the CPU: a GPU would have to be waited for."""

    _group: Any = None  # all of them by default

    def highest(self, says: int) -> int:
        """Returns the highest number that one of the processes says; all must ask."""
        if not several():
            return says
        if self._group is None and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        vote = torch.tensor([says])
        dist.all_reduce(vote, dist.ReduceOp.MAX, group=self._group)
        return int(vote)


def first_word(word: T | None) -> T | None:
    """Returns what the first of all processes that has something to say says; all must ask."""
    if not several():
        return word
    words: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(words, word)
    return next((said for said in words if said is not None), None)


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """Ends the processes that Lightning started when the first one fails; Lightning does so for a Ctrl-C only.

    A wish to stop, on which all agree at the same step, is the first's to tell. The others end without an error, of
    which Lightning or torchrun would make an end of the first.
    """
    launch = launched()
    try:
        yield
    except InterruptedRunError:
        if launch is not None and launch.rank:
            sys.exit(0)
        raise
    except BaseException:
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise
