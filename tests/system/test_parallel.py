"""Parallel maps: results keep their order, run a few items ahead and leave no process behind."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from agegender.errors import AgeGenderError
from agegender.system import parallel
from agegender.system.parallel import CHUNK_SIZE, MIN_ITEMS_PER_PROCESS, map_processes, map_threads

MANY = range(2 * MIN_ITEMS_PER_PROCESS)  # enough for processes
WORK = """
import os, signal, time
from agegender.errors import AgeGenderError

def where(items):
    print("this is no answer")
    return [(item, os.getpid()) for item in items]

def fail(items):
    raise AgeGenderError(f"{os.getpid()} can't")

def die(survivor, items):
    if os.getpid() != survivor:
        os.kill(os.getpid(), signal.SIGKILL)
    return where(items)

def meet(count, folder, items):
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 30
    while len(os.listdir(folder)) < count and time.monotonic() < end:
        time.sleep(0.01)
    return where(items)
"""


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module of functions that worker processes can import too."""
    (tmp_path / "made_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_work", raising=False)
    return importlib.import_module("made_work")


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100, 1000])
def test_map_threads_keeps_the_order_of_the_items(count: int) -> None:
    assert list(map_threads(lambda item: item * 2, range(count), "doubling")) == [2 * item for item in range(count)]


def test_map_threads_runs_only_a_few_items_ahead() -> None:
    done: list[int] = []
    results = map_threads(done.append, range(1000), "noting")
    next(results)
    assert len(done) <= CHUNK_SIZE * 6
    results.close()  # type: ignore[attr-defined]


def test_map_threads_stops_at_the_first_error() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item == 20:
            raise ValueError("the twentieth")

    with pytest.raises(ValueError, match="the twentieth"):
        list(map_threads(work, range(1000), "working"))
    assert len(done) <= CHUNK_SIZE * 8


def test_map_threads_restores_the_warning_filters() -> None:
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


def test_map_processes_distributes_many_items_and_keeps_their_order(work: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    results = list(map_processes(partial(work.meet, 2, tmp_path / "notes"), MANY, "working"))
    assert [item for item, _ in results] == list(MANY)
    pids = {pid for _, pid in results}
    assert len(pids) == 2 and os.getpid() not in pids


def test_map_processes_keeps_few_items_in_this_process() -> None:
    items = range(2 * MIN_ITEMS_PER_PROCESS - 1)
    assert list(map_processes(lambda part: [-item for item in part], items, "working")) == [-item for item in items]


def test_map_processes_raises_a_workers_error_unchanged(work: ModuleType) -> None:
    with pytest.raises(AgeGenderError, match="can't") as caught:
        list(map_processes(work.fail, MANY, "working"))
    assert not str(caught.value).startswith(str(os.getpid()))


def test_map_processes_reports_a_killed_worker_in_one_line(work: ModuleType) -> None:
    with pytest.raises(AgeGenderError, match="the system killed a process at work"):
        list(map_processes(partial(work.die, os.getpid()), MANY, "working"))


@pytest.mark.slow
def test_map_processes_workers_end_with_a_killed_parent(work: ModuleType, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from functools import partial
from pathlib import Path
from agegender.system import parallel
import made_work
parallel.available_cores = lambda: 3
list(parallel.map_processes(partial(made_work.meet, 3, Path({str(notes)!r})), range(100_000), "working"))
"""
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, env=path) as process:
        _wait_for(lambda: len(list(notes.iterdir())) == 3)
        process.kill()
    others = [int(path.name) for path in notes.iterdir()]
    assert process.returncode == -signal.SIGKILL and len(others) == 3 and process.pid not in others
    _wait_for(lambda: not any(_runs(pid) for pid in others))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kill_at_any_moment_of_reading_leaves_no_process_behind(faces: Path, tmp_path: Path) -> None:
    """Also one that has just started, that waits for a lock, or whose pipe is full."""
    folder = tmp_path / "many"
    folder.mkdir()
    content = max(faces.glob("*.jpg")).read_bytes()
    for number in range(3000):
        (folder / f"{number % 90}_0_0_{number}.jpg").write_bytes(content + bytes(number))
    program = f"""
from pathlib import Path
from agegender.data.index.scan import scan_folder
from agegender.system import parallel
parallel.available_cores = lambda: 3
folder = Path({str(folder)!r})
scan_folder(folder, sorted(path.name for path in folder.iterdir()), Path({str(tmp_path / "cache")!r}))
"""
    for number in range(8):
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
        _wait_for(lambda process=process: bool(_children(process.pid)) or process.poll() is not None)  # type: ignore[misc]
        time.sleep(0.3 * number)
        workers = _children(process.pid)
        process.kill()
        process.wait()
        end = time.monotonic() + 15
        while left := [pid for pid in workers if _runs(pid)]:
            assert time.monotonic() < end, (number, left)
            time.sleep(0.05)


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # where nobody collects orphans, they stay as zombies
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def _wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
