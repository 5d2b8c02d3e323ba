"""The process group of a distributed training: launch checks, start, turns, and the end of all ranks on an error."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch.distributed as dist

from agegender.distributed.launcher import detect_launcher
from agegender.errors import InterruptedRunError, require
from agegender.system.files import exclusive_lock


def check_world_size(trainer: pl.Trainer, multirun: bool, batch_size: int) -> None:
    """Check that the Trainer matches how this process was launched.

    Args:
        trainer: The Trainer.
        multirun: Whether this is a job of a Hydra multirun.
        batch_size: Faces per step, over all devices.

    Raises:
        AgeGenderError: A multirun uses several devices, the world size differs from the number of launched processes,
            `num_nodes` is set without a launcher, or the batch size is not divisible by the world size.
    """
    launch = detect_launcher()
    devices = f"trainer.devices={trainer.num_devices} on trainer.num_nodes={trainer.num_nodes}"
    require(
        not multirun or (trainer.world_size == 1 and launch is None),
        f"{devices} in a multirun (-m): each of the processes would start the whole sweep again. Sweep with "
        "trainer.devices=1, or start each training by itself, without -m",
    )
    if launch is not None and launch.world_size is not None:
        wanted = f"trainer=ddp trainer.devices={launch.local_world_size or '<processes on each machine>'}"
        nodes = launch.world_size // launch.local_world_size if launch.local_world_size else 1
        require(
            trainer.world_size == launch.world_size,
            f"{launch.launcher} started {launch.world_size} processes, but the settings say {devices}: set "
            f"{wanted} trainer.num_nodes={nodes}",
        )
    require(
        launch is not None or trainer.num_nodes == 1,
        f"trainer.num_nodes={trainer.num_nodes}, but this process was started alone: start one on each machine, with "
        "torchrun or srun (docs/launching.md)",
    )
    require(
        batch_size % trainer.world_size == 0,
        f"data.batch_size={batch_size} is split over {trainer.world_size} devices at every step: set a multiple of "
        f"{trainer.world_size}",
    )


def init_process_group(trainer: pl.Trainer) -> None:
    """Join the process group of a launcher; Lightning's own processes start only with the training.

    All ranks but 0 log nothing from here on.
    """
    launch = detect_launcher()
    if launch is None:
        return
    if launch.rank:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
    trainer.strategy.setup_environment()


@contextmanager
def one_rank_at_a_time(cache_dir: Path) -> Iterator[None]:
    """Let one process at a time prepare the data: the first one fills the cache, which the others read.

    A barrier would time out after half an hour.

    Args:
        cache_dir: Folder of the cache and of the lock file.
    """
    if detect_launcher() is None:
        yield
        return
    with exclusive_lock(cache_dir / "several", "another process is reading the images: waiting"):
        yield


def barrier() -> None:
    """Wait at a barrier before the training if an external launcher started all ranks."""
    launch = detect_launcher()
    if launch is not None and launch.launcher != "Lightning":
        dist.barrier()


@contextmanager
def terminate_children(trainer: pl.Trainer) -> Iterator[None]:
    """Kill the processes that Lightning launched when rank 0 fails; Lightning does so for Ctrl-C only.

    After a graceful stop, on which all ranks agree at the same step, only rank 0 prints the message. The others exit
    without an error, for which Lightning or torchrun would kill rank 0.
    """
    launch = detect_launcher()
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
