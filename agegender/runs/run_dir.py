"""Unique, locked run folders: runs that start in the same second get different ones, and each has one process."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from agegender.config.overrides import as_written, quote_override
from agegender.distributed.launcher import detect_launcher
from agegender.system.files import acquire_lock, raise_write_errors, remove_temp_files

log = logging.getLogger(__name__)

LOCK_FILE = ".at_work"


class UniqueRunDir(Callback):
    """A Hydra callback that creates the folder of a run; the folder of a sweep is created by `SweepSummary`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder of a run."""
        create_run_dir(config, "run")


def create_run_dir(config: DictConfig, kind: str) -> None:
    """Create the folder of a `run` or a `sweep`, with `_2`, `_3`, ... appended to its name if it exists already.

    This applies to folders named by the time. Other folders are used as they are: the command set them, or a study
    continues in them.
    """
    unresolved: dict[str, Any] = OmegaConf.to_container(config.hydra[kind], resolve=False)  # type: ignore[assignment]
    if "${now:" not in str(unresolved["dir"]):
        return
    wanted = Path(config.hydra[kind].dir)
    try:
        folder = make_unique_dir(wanted)
    except OSError:
        return  # Hydra, which doesn't report errors of callbacks, raises and reports the same error afterwards
    if folder != wanted:
        set_run_dir(config, kind, folder)


def set_run_dir(config: DictConfig, kind: str, folder: Path) -> None:
    """Set the folder of a `run` or a `sweep` in Hydra's config, for the jobs of a sweep too."""
    overrides = as_written(config.hydra.overrides.hydra)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra[kind].dir = str(folder)
        # Configs of a sweep's jobs are composed from these overrides.
        config.hydra.overrides.hydra = [*overrides, f"hydra.{kind}.dir={quote_override(str(folder))}"]


def make_unique_dir(wanted: Path) -> Path:
    """Create a new folder, with a number appended to its name if `wanted` exists, and return it.

    Raises:
        OSError: The folder can't be created.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir()  # atomic: of several processes, one succeeds
            break
        except FileExistsError:
            continue
    return folder


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder during a training, and remove the temporary files of killed processes.

    The kernel releases the lock when the process ends. In a distributed training, rank 0 holds it.

    Raises:
        AgeGenderError: Another training holds the lock.
    """
    launch = detect_launcher()
    if launch is not None and launch.rank:
        yield
        return
    refusal = f"another run is training in {run}: wait for it, or set another folder with hydra.run.dir=..."
    with raise_write_errors("the run's folder", run):
        lock = acquire_lock(run / LOCK_FILE, refusal)
    try:
        for left in remove_temp_files(run / "checkpoints"):
            log.info("removed %s, an incomplete file of a killed run", left.name)
        yield
    finally:
        lock.release()
        with suppress(OSError):
            (run / LOCK_FILE).unlink(missing_ok=True)


def is_running(run: Path) -> bool:
    """Return whether a training holds the lock of a run folder."""
    if not (run / LOCK_FILE).exists():
        return False
    lock = FileLock(run / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()
    return False
