"""Each run has its folder to itself: two that begin in the same second get two, and none enters another's."""

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

_LOCK = ".at_work"


class UniqueRunDir(Callback):
    """Makes the folder that Hydra named by the time, or one with `_2`, `_3`, ... behind it if another run just did.

    A folder that is named in another way, by the command or for a study that goes on in it, is taken as it is.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claims a run's folder."""
        _claim(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claims a sweep's folder; its jobs' are below it."""
        _claim(config, "sweep")


def _claim(config: DictConfig, kind: str) -> None:
    given = as_written(config.hydra.overrides.hydra)
    named: dict[str, Any] = OmegaConf.to_container(config.hydra[kind], resolve=False)  # type: ignore[assignment]
    if "${now:" not in str(named["dir"]):
        return
    wanted = Path(config.hydra[kind].dir)
    try:
        folder = make_unique_dir(wanted)
    except OSError:
        return  # Hydra fails at the same, and its error reaches the user; a callback's doesn't
    if folder == wanted:
        return
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra[kind].dir = str(folder)
        # a sweep's jobs are composed anew, from these
        config.hydra.overrides.hydra = [*given, f"hydra.{kind}.dir={quote_override(str(folder))}"]


def make_unique_dir(wanted: Path) -> Path:
    """Makes a folder that wasn't there, by the wanted name or with a number behind it, and returns it.

    Raises:
        OSError: None can be made there.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir()  # of several that try at once, the file system lets one
            break
        except FileExistsError:
            continue
    return folder


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Keeps a run's folder to one training at a time, and clears away what a killed one had half written in it.

    The lock goes with the process, however that ends. Of several processes that train together, the first holds it.

    Raises:
        AgeGenderError: Another run is at work there.
    """
    launch = detect_launcher()
    if launch is not None and launch.rank:
        yield
        return
    refusal = f"another run is at work in {run}: wait for it, or give this one a folder of its own"
    with raise_write_errors("the run's folder", run):
        lock = acquire_lock(run / _LOCK, refusal)
    try:
        for left in remove_temp_files(run / "checkpoints"):
            log.info("removed %s, which a run that was killed had begun to write", left.name)
        yield
    finally:
        lock.release()
        with suppress(OSError):
            (run / _LOCK).unlink(missing_ok=True)


def is_running(run: Path) -> bool:
    """Tells whether a training is at work in a folder now."""
    if not (run / _LOCK).exists():
        return False
    lock = FileLock(run / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()
    return False
