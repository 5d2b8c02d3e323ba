"""Map a function over many items on all cores, in threads or, where the GIL limits threads, in processes."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from agegender.errors import AgeGenderError
from agegender.system.progress import available_cores, track

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_SIZE = 16  # most items per task: single items would cost noticeable dispatch time
MIN_ITEMS_PER_PROCESS = 256  # fewest items per process: a start takes as long as decoding some 200 images
IDLE_TIMEOUT = 10.0  # seconds without work after which a process exits
PARENT_CHECK = 0.5  # seconds between two looks for the parent process


def map_threads(work: Callable[[Item], Result], items: Sequence[Item], description: str) -> Iterator[Result]:
    """Apply `work` to every item in threads, one per core, and yield the results in order, under a progress bar.

    For functions that can't be pickled, and for too little work for processes. The number of pending tasks is bounded,
    so memory doesn't grow with the number of items.
    """
    return track(_in_threads(lambda part: [work(item) for item in part], items), description, len(items))


def map_processes(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], description: str
) -> Iterator[Result]:
    """Apply `work` to a few items at a time on all cores and yield the results in order, under a progress bar.

    Pillow and hashlib release the GIL, but threads that reacquire it a dozen times per image lose a quarter of two
    cores to waiting, and most of sixteen. joblib's processes are not forked, and need no guarded main module. Few items
    are processed in threads.

    Args:
        work: Takes some consecutive items and returns a result for each. It is pickled, as are the items, the results
            and any exception.
        items: The inputs.
        description: Label of the progress bar.

    Raises:
        AgeGenderError: The system killed a worker process.
    """
    processes = min(available_cores(), len(items) // MIN_ITEMS_PER_PROCESS)
    results = _in_processes(work, items, processes) if processes > 1 else _in_threads(work, items)
    return track(results, description, len(items))


def _in_threads(work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> Iterator[Result]:
    threads = available_cores()
    size = min(CHUNK_SIZE, 1 + len(items) // (4 * threads))
    tasks: deque[Future[Sequence[Result]]] = deque()
    # `warnings.catch_warnings` changes and restores one list of the whole process. Threads that do so at the same time
    # restore it in the wrong order, which would leave warnings disabled.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(items), size):
                tasks.append(pool.submit(work, items[start : start + size]))
                if len(tasks) > 2 * threads:
                    yield from tasks.popleft().result()
            while tasks:
                yield from tasks.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error: `with` still waits for the running tasks


def _in_processes(
    work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], processes: int
) -> Iterator[Result]:
    # imported here: most commands never need it
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parts = (items[start : start + CHUNK_SIZE] for start in range(0, len(items), CHUNK_SIZE))
    try:
        # The timeout lets the decoding of a folder reuse the processes that read it.
        pool = Parallel(
            processes,
            return_as="generator",
            backend="loky",
            idle_worker_timeout=IDLE_TIMEOUT,
            initializer=_end_with_parent,
            initargs=(os.getpid(),),
        )
        for results in pool(delayed(work)(part) for part in parts):
            yield from results
    except TerminatedWorkerError:
        raise AgeGenderError("the system killed a process at work, perhaps for its memory; start again") from None


def _end_with_parent(parent: int) -> None:
    """Watch from a thread of a worker process whether its parent lives, and end the worker if not.

    After `kill -9` of the parent, a worker may wait forever: for a lock that the parent held, or to write to a full
    pipe that nobody reads.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
