"""Work over many files, on all cores: in threads, or in processes where threads would wait for each other's Python."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from agegender.errors import AgeGenderError
from agegender.progress import available_cores, track

Item = TypeVar("Item")
Result = TypeVar("Result")

TASK = 16  # most items that are handed over at once: one by one, the handing over would show
SHARE = 256  # fewest items that are worth a process: it takes as long to start as some 200 pictures to decode
IDLE = 10.0  # seconds without work, after which a process ends by itself


def map_threads(work: Callable[[Item], Result], items: Sequence[Item], description: str) -> Iterator[Result]:
    """Applies `work` to every item in threads, one per core, and yields the results in order, under a progress bar.

    For what is no function of a module, or not enough work for processes. Items are handed out a few at a time, and
    only so far ahead of what was taken, so that memory doesn't grow with them.
    """
    return track(_in_threads(lambda part: [work(item) for item in part], items), description, len(items))


def map_processes(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], description: str
) -> Iterator[Result]:
    """Applies `work` to a few items at a time on all cores and yields the results in order, under a progress bar.

    Pillow and hashlib release the interpreter lock, but threads that ask for it back a dozen times per picture lose a
    quarter of two cores to waiting, and most of sixteen. joblib's processes are not forked, and need no guarded main
    module. Few items are done in threads.

    Args:
        work: Takes some consecutive items and returns a result for each; it is pickled, as are the items, the results
            and what it raises.
        items: What to work on.
        description: Of the progress bar.

    Raises:
        AgeGenderError: The system killed a process.
    """
    processes = min(available_cores(), len(items) // SHARE)
    results = _in_processes(work, items, processes) if processes > 1 else _in_threads(work, items)
    return track(results, description, len(items))


def _in_threads(work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> Iterator[Result]:
    threads = available_cores()
    size = min(TASK, 1 + len(items) // (4 * threads))
    tasks: deque[Future[Sequence[Result]]] = deque()
    # Work that silences warnings for a moment changes and restores one list for the whole process. Threads that do so
    # at once restore it in the wrong order, and it would stay silent.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(items), size):
                tasks.append(pool.submit(work, items[start : start + size]))
                if len(tasks) > 2 * threads:
                    yield from tasks.popleft().result()
            while tasks:
                yield from tasks.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error: `with` still waits for what has begun


def _in_processes(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], processes: int
) -> Iterator[Result]:
    # here: most commands never get this far
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parts = (items[start : start + TASK] for start in range(0, len(items), TASK))
    try:
        # They stay for a moment: reading a folder is followed by decoding it. Those of a killed parent end then too.
        pool = Parallel(processes, return_as="generator", backend="loky", idle_worker_timeout=IDLE)
        for results in pool(delayed(work)(part) for part in parts):
            yield from results
    except TerminatedWorkerError:
        raise AgeGenderError("the system killed a process at work, perhaps for its memory; start again") from None
