"""Work on all cores comes back in order, a little at a time, and leaves the process as it was."""

from __future__ import annotations

import threading
import warnings

import pytest

from agegender import progress
from agegender.progress import TASK, map_threads


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "available_cores", lambda: 2)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100, 1000])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    assert list(map_threads(lambda item: item * 2, range(count), "doubling")) == [2 * item for item in range(count)]


def test_work_keeps_only_a_little_ahead_of_what_is_taken() -> None:
    done: list[int] = []
    results = map_threads(done.append, range(1000), "noting")
    next(results)
    assert len(done) <= TASK * 6
    results.close()  # type: ignore[attr-defined]


def test_an_error_ends_the_work_at_once() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item == 20:
            raise ValueError("the twentieth")

    with pytest.raises(ValueError, match="the twentieth"):
        list(map_threads(work, range(1000), "working"))
    assert len(done) <= TASK * 8


def test_warnings_silenced_in_two_threads_at_once_are_heard_again() -> None:
    first_in, both_in, first_out = threading.Event(), threading.Barrier(2, timeout=20), threading.Event()

    def work(item: int) -> None:
        if item == 1:
            first_in.wait(20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first_in.set()
            both_in.wait()
            if item == 1:
                first_out.wait(20)  # so the last to leave restores what it found: silence
        first_out.set()

    before = list(warnings.filters)
    list(map_threads(work, range(2), "working"))
    assert list(warnings.filters) == before
