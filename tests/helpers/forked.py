"""train.py in processes forked from a server that has imported everything, so that tests can kill many quickly."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from conftest import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["agegender.training.train", "torch.utils.tensorboard", "helpers.forked"])


def start_training(arguments: Sequence[str], cwd: Path, log: Path, die: tuple[str, int] | None = None) -> Any:
    """Starts train.py in a forked process.

    Args:
        arguments: Arguments of the command.
        cwd: Working folder.
        log: File to which the output is appended.
        die: Place of `PLACES` and the visit to it at which the process kills itself with SIGKILL; with "loader", it
            kills its loader processes instead.

    Returns:
        The process; its `exitcode` is negative if a signal ended it.
    """
    process: ForkServerProcess = _CONTEXT.Process(target=_train, args=(list(arguments), str(cwd), str(log), die))
    process.start()
    return process


def _train(arguments: list[str], cwd: str, log: str, die: tuple[str, int] | None) -> None:
    os.chdir(cwd)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if die:
        {**PLACES, "loader": _kill_loader}[die[0]](_countdown(die[1]))
    sys.argv = [str(ROOT / "train.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _countdown(visits: int) -> Callable[[], None]:
    left = [visits]

    def visit() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return visit


def _die_in_module(hook: str) -> Callable[[Callable[[], None]], None]:
    def install(visit: Callable[[], None]) -> None:
        from agegender.training.module import AgeGenderModule

        own = getattr(AgeGenderModule, hook)

        def visit_first(*args: Any, **options: Any) -> Any:
            visit()
            return own(*args, **options)

        setattr(AgeGenderModule, hook, visit_first)

    return install


def _die_in_write(visit: Callable[[], None]) -> None:
    """Visits when half of a checkpoint is written."""
    from agegender.system import files
    from agegender.training import checkpoint_io

    @contextmanager
    def in_halves(path: Path, durable: bool) -> Iterator[Any]:
        with write_whole(path, durable=durable) as file:
            yield _Halves(file, visit)

    write_whole = files.atomic_write
    setattr(checkpoint_io, "atomic_write", in_halves)  # noqa: B010 - mypy minds an assignment


class _Halves:
    def __init__(self, file: Any, visit: Callable[[], None]):
        self._file, self._visit = file, visit

    def write(self, content: memoryview) -> None:
        middle = len(content) // 2
        self._file.write(content[:middle])
        self._file.flush()
        self._visit()
        self._file.write(content[middle:])


def _kill_loader(visit: Callable[[], None]) -> None:
    """Kills the loader processes in the third step, as the kernel does when memory runs out."""
    from agegender.training.module import AgeGenderModule

    own = AgeGenderModule.training_step

    def step(self: AgeGenderModule, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 2:
            for loader in multiprocessing.active_children():
                loader.kill()
        return own(self, batch, batch_idx)

    AgeGenderModule.training_step = step  # type: ignore[method-assign]


PLACES = {
    "step": _die_in_module("training_step"),
    "backward": _die_in_module("on_after_backward"),
    "validation": _die_in_module("validation_step"),
    "epoch's end": _die_in_module("on_train_epoch_end"),
    "checkpoint": _die_in_write,
}
