"""Several processes that train as one: how they find each other, agree, count together, and end together."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from agegender.errors import EXIT_ERROR, EXIT_INTERRUPTED, AgeGenderError, InterruptedRunError, require
from agegender.files import one_at_a_time
from agegender.launched import Launch, launched, let_the_first_tell, script

T = TypeVar("T")

_ENDING = 20.0  # seconds that the processes which Lightning started get to end by themselves
_LOOKS = 2.0  # seconds between two looks at whether the first process is still there
_FIRST = 0.5  # seconds that the first process is given to tell an error that all have
_LOST = re.compile(
    r"closed by peer|reset by peer|broken pipe|socket timeout|timed out|failed to connect|recvValue", re.I
)


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

    From here on any of them can tell an error, and the others know of it. All but the first fall silent.
    """
    launch = launched()
    if launch is None:
        return
    if launch.rank:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
    if launch.by == "Lightning":
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    trainer.strategy.setup_environment()


def _follow(parent: int) -> None:
    """Ends this process when the one that started it is gone: killed, it could not, and waiting for it takes long."""
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os._exit(EXIT_ERROR)


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
def told_once(folder: Path) -> Iterator[None]:
    """Has one of several processes tell what went wrong; the others end without a word.

    An error that all of them have is the first's to tell. Of others it is the one's that had it; the rest only notice
    that it is gone.

    Args:
        folder: The run's.

    Raises:
        AgeGenderError: A process vanished, and no other has told why.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        launch = launched()
        interrupted = isinstance(error, InterruptedRunError | KeyboardInterrupt)
        if several():
            tells = (launch is None or launch.rank == 0) if interrupted else _is_first_to_tell(launch)
        else:
            tells = launch is None or launch.by == "Lightning" or launch.local_rank == 0
        if not tells:
            # Lightning's first process watches those that it started, and kills itself when one of them fails.
            sys.stdout.flush()
            if not several() and not interrupted:
                let_the_first_tell()
            os._exit(0 if launch and launch.by == "Lightning" else EXIT_INTERRUPTED if interrupted else EXIT_ERROR)
        if several() and not isinstance(error, AgeGenderError) and _LOST.search(str(error)):
            raise AgeGenderError(
                "another process of this training is gone without a word (killed, or out of memory?); what was saved "
                f"last continues with: {script('train')} resume={folder}"
            ) from error
        raise


def _is_first_to_tell(launch: Launch | None) -> bool:
    """Claims the telling at the store by which the processes found each other."""
    if launch is not None and launch.rank > 0:
        time.sleep(_FIRST)
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store: Any = dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=3))  # type: ignore[attr-defined]
        return bool(store.add("agegender/told", 1) == 1)
    except (dist.DistError, RuntimeError):  # it lived in the first process, which is gone, and has told
        return False


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """Sees to it that no process which Lightning started outlives this one."""
    try:
        yield
    except BaseException as error:
        _end(trainer, _ENDING if isinstance(error, InterruptedRunError) else 0)
        raise
    _end(trainer, _ENDING)


def _end(trainer: pl.Trainer, patience: float) -> None:
    started: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + patience
    for process in started:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
