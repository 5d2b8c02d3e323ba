"""The number of available cores, and a progress bar on terminals."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agegender.system.terminal import console

Item = TypeVar("Item")


def available_cores() -> int:
    """Return the number of cores that this process may use, which a container or a job scheduler may limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if that is a terminal, and yield a function that sets the completed count.

    Args:
        description: Label of the bar.
        total: Total count; None if unknown.
    """
    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def track(items: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    with progress_bar(description, total) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done)
