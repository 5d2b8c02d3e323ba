"""Start `train.py` and `predict.py` as a user would, and read what they wrote."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.runner import ROOT, Setup


@dataclass(frozen=True)
class Run:
    """A finished run of `train.py`: its folder, its `metrics.json` and its command."""

    folder: Path
    metrics: dict[str, Any]
    command: str


def train(setup: Setup, name: str, *overrides: str, resume: bool = False) -> Run:
    """Run `train.py`, and return its results.

    Args:
        setup: The data, the device and the folder of the results.
        name: Folder of the run below `<out>/runs`.
        *overrides: Further overrides.
        resume: Continue the run that is there.

    Raises:
        CalledProcessError: The training failed; its output is in the step's log.
    """
    folder = setup.out / "runs" / name
    chosen = [*overrides, f"resume={folder}" if resume else f"hydra.run.dir={folder}"]
    if not resume:
        accelerator = "gpu" if setup.device == "cuda" else "cpu"
        chosen += [f"trainer.accelerator={accelerator}", "logger=csv", *data_overrides(setup)]
    _script("train.py", *chosen)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Run(folder, metrics, shlex.join(["python", "train.py", *overrides]))


def data_overrides(setup: Setup) -> list[str]:
    """Return the overrides that select the data; the caches are in the folder of the results."""
    chosen = [f"data.cache_dir={setup.out / 'cache'}"]
    chosen += [f"data.dir={setup.data}"] if setup.data else ["data=synthetic"]
    if not setup.data and setup.faces:
        chosen.append(f"data.synthetic.count={setup.faces}")
    elif setup.faces:
        chosen.append(f"data.limit={setup.faces}")
    return chosen


def predict(setup: Setup, out: Path, *overrides: str) -> None:
    """Run `predict.py` with its results in a file."""
    _script("predict.py", f"out={out}", *overrides)


def _script(name: str, *overrides: str) -> None:
    command = [sys.executable, str(ROOT / name), *overrides]
    print("$", shlex.join(command), flush=True)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
