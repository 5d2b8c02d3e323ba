"""Run the steps one after another, each in a process of its own with a time limit and a log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.gpu.figures import Figure, read_figures

ROOT = Path(__file__).parents[2]
WORTHWHILE = 15.0  # seconds; with less left, no further step is started


@dataclass(frozen=True)
class Setup:
    """What every step needs.

    Attributes:
        out: Folder of all results; absolute.
        data: Folder of UTKFace; None for drawn faces.
        device: `cuda` or `cpu`.
        faces: Maximum number of faces in a training; None for all.
    """

    out: Path
    data: Path | None
    device: str
    faces: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The end of a step.

    Attributes:
        step: The step's name.
        state: `done`, `failed`, `out of time` or `not started`.
        seconds: Its duration.
        limit: Its time limit in seconds.
        figures: The values that it measured, complete or not.
    """

    step: str
    state: str
    seconds: float
    limit: float
    figures: list[Figure] = field(default_factory=list)


def run_steps(setup: Setup, limits: dict[str, float], minutes: float) -> list[Outcome]:
    """Run steps in order until the time is over; a failed step doesn't stop the next.

    Args:
        setup: The data, the device and the folder of the results.
        limits: Time limit in seconds of each step, in the order in which they run.
        minutes: Time limit of all steps together.
    """
    setup.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    outcomes = []
    for step, limit in limits.items():
        left = end - time.monotonic()
        if left < min(WORTHWHILE, limit):
            outcomes.append(Outcome(step, "not started", 0.0, limit))
            continue
        print(f"{step}: at most {min(limit, left):.0f} s; log: {setup.out / f'{step}.log'}", flush=True)
        outcomes.append(_run(setup, step, min(limit, left)))
        print(f"{step}: {outcomes[-1].state} after {outcomes[-1].seconds:.0f} s", flush=True)
    return outcomes


def _run(setup: Setup, step: str, limit: float) -> Outcome:
    given = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(setup).items()}
    command = [sys.executable, "-m", "benchmarks.gpu.worker", step, json.dumps(given)]
    start = time.monotonic()
    figures = setup.out / f"{step}.jsonl"
    figures.unlink(missing_ok=True)
    with (setup.out / f"{step}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            state = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            state = "out of time"
        finally:
            _kill_group(process)
    return Outcome(step, state, time.monotonic() - start, limit, read_figures(figures))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a step with its trainings and their workers, which are in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment() -> dict[str, str]:
    """Return the environment of the steps: the source tree is importable, and its callbacks are trusted."""
    paths: Sequence[str] = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "AGEGENDER_TRUST": "benchmarks",
        "PYTHONUNBUFFERED": "1",
    }
