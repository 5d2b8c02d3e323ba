"""Work over many files, on all cores, with a progress bar for whoever watches a terminal."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

TASK = 16  # most items that a thread is handed at once: one by one, the handing over would show


def available_cores() -> int:
    """Returns how many cores this process may use (a container or a job scheduler may give fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error if that is a terminal, and gives a function that says how much is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.update(task, completed=done)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yields the items under a progress bar."""
    with progress_bar(description, total) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done)


def map_threads(work: Callable[[Item], Result], items: Sequence[Item], description: str) -> Iterator[Result]:
    """Applies `work` to every item on all cores and yields the results in order.

    Threads, not processes: Pillow's decoders and filters and hashlib release the interpreter lock, and threads need
    neither a guarded main module nor pickling. Items are handed out a few at a time, and only so far ahead of what was
    taken, so that memory doesn't grow with them.
    """
    return track(_map_threads(work, items), description, len(items))


def _map_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    cores = available_cores()
    size = min(TASK, 1 + len(items) // (4 * cores))
    tasks: deque[Future[list[Result]]] = deque()
    # Work that silences warnings for a moment changes and restores one list for the whole process. Threads that do so
    # at once restore it in the wrong order, and it would stay silent.
    with warnings.catch_warnings(), ThreadPoolExecutor(cores) as pool:
        try:
            for start in range(0, len(items), size):
                tasks.append(pool.submit(_each, work, items[start : start + size]))
                if len(tasks) > 2 * cores:
                    yield from tasks.popleft().result()
            while tasks:
                yield from tasks.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error: `with` still waits for what has begun


def _each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]
