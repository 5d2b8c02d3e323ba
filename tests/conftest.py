"""Shared fixtures: small folders of drawn faces, one trained run, and the two scripts as a user runs them."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from helpers.blank_plots import blank_plots
from PIL import Image

from agegender.config.trust import VARIABLE
from agegender.data.sources.synthetic import generate_faces
from agegender.system.progress import available_cores

ROOT = Path(__file__).parent.parent
# Ignored where a shell without job control started pytest by `command &`: Python then has no handler for it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Small enough for a second per run, large enough for every split to hold some faces.
TINY = (
    "data=synthetic",
    "data.synthetic.count=120",
    "data.synthetic.size=64",
    "data.image_size=32",
    "data.batch_size=16",
    "model.trunk.channels=[8,16]",
    "model.head_units=[16]",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "report=false",
)
# Transposition that stores an upright image under each EXIF orientation: the inverse of a viewer's.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    def assert_one_line_error(self, *mentions: str, code: int = 1) -> None:
        """Asserts that the command was refused with an exit code and one line `error: ...` that holds each text.

        A text that starts with `error: ` must start the line.
        """
        assert self.code == code, f"exit code {self.code}, not {code}: {self.err}"
        assert self.err.startswith("error: ") and self.err.count("\n") == 1, self.err
        for mention in mentions:
            found = self.err.startswith(mention) if mention.startswith("error: ") else mention in self.err
            assert found, f"{mention!r} is not in {self.err!r}"


hypothesis.settings.register_profile("any machine", deadline=None)  # a time limit per example fails by chance
hypothesis.settings.load_profile("any machine")


def pytest_configure() -> None:
    """Limits each xdist worker to one thread, as the workers share the cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns the number of xdist workers: at most four, for their memory; none for benchmarks."""
    return 0 if config.option.markexpr == "benchmark" else min(4, available_cores())


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Points the cache to a temporary folder instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEGENDER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@contextmanager
def same_logging() -> Iterator[None]:
    """Restores the level that Hydra sets, and the loggers that it disables, for the rest of the process."""
    level = logging.root.level
    try:
        yield
    finally:
        logging.root.setLevel(level)
        for handler in [each for each in logging.root.handlers if type(each) is logging.StreamHandler]:
            logging.root.removeHandler(handler)  # its stream is that of a finished test
        for name, logger in logging.root.manager.loggerDict.items():
            if name.startswith("agegender") and isinstance(logger, logging.Logger):
                logger.disabled = False


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Commands that a test starts within the test's process leave the loggers as they were."""
    with same_logging():
        yield


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 120 valid drawn faces. Read only: copy it to change it."""
    return generate_faces(tmp_path_factory.mktemp("faces") / "plain", 120, seed=1, size=64)


@pytest.fixture(scope="session")
def odd_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 drawn faces and every odd file of `agegender.data.sources.synthetic`. Read only."""
    return generate_faces(tmp_path_factory.mktemp("faces") / "odd", 60, seed=2, size=64, odd_files=True)


def run_script(script: str, *arguments: str, cwd: Path, timeout: float = 240) -> Outcome:
    """Runs train.py or predict.py in a subprocess, as a user does."""
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def same_signal_handlers() -> Iterator[None]:
    """Restores the signal handlers: a command that ends ignores signals, which would hold for the whole process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def _module_signal_handlers() -> Iterator[None]:
    """Commands in fixtures of a module leave the signal handlers as they were."""
    with same_signal_handlers():
        yield


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> Iterator[None]:
    """Commands that a test starts within the test's process leave the signal handlers as they were."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with same_signal_handlers():
        yield


def run_inside(script: str, *arguments: str) -> int:
    """Runs a script inside this process and returns its exit code: the same code without the slow imports."""
    threads, trusted = torch.get_num_threads(), os.environ.get(VARIABLE)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), same_signal_handlers(), same_logging():
        patch.setattr(sys, "argv", [str(ROOT / script), *arguments])
        patch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))  # the command changes it
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            torch.set_num_threads(threads)
            os.environ.pop(VARIABLE, None)  # `trust=` holds for one command
            if trusted is not None:
                os.environ[VARIABLE] = trusted
    return 0


def run_in(folder: Path, script: str, *arguments: str) -> str:
    """Runs a script inside this process and a folder, with blank plots, for a module's fixture; returns its output."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), blank_plots():
        patch.chdir(folder)
        assert run_inside(script, *arguments) == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs a script inside the test's process, in `tmp_path`; see `run_inside`."""

    def run(script: str, *arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = run_inside(script, *arguments)
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny training. Read only."""
    where = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(where):
        assert run_inside("train.py", *TINY, "hydra.run.dir=run") == 0
    return where / "run"


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Limits the size of every file, in bytes: simulates a full disk without root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def metrics_of(run: Path) -> dict[str, Any]:
    """Returns a run's metrics.json."""
    figures: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return figures
