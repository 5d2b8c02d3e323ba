"""Several processes train, measure and end as one does: with the same figures, one folder and one line per error."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome, metrics_of, run_script

from agegender.checkpoint import load_checkpoint

Run = Callable[..., Outcome]
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
# Nothing random but the start and the order, which all processes share. The last batch of the training has one face, and
# that of the validation: it leaves the second process none.
SAME = (*TINY, "model.dropout=0", "data.batch_size=6", "data.limit=94", "trainer.gradient_clip_val=1")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def start(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a command in a process group of its own, as a terminal does."""
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True, **piped)


def end_of(process: subprocess.Popen[str]) -> Outcome:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Outcome(process.returncode, out, err)


def assert_same_figures(first: Path, second: Path, least: int = 12) -> None:
    """Holds two runs' figures, answers and weights against each other; sums of another order differ a little."""
    ours, theirs = metrics_of(first), metrics_of(second)
    names = [name for name in ours if name.startswith(("val/", "test/", "images/", "baseline/")) and ours[name]]
    assert len(names) >= least
    assert {name: theirs[name] for name in names} == pytest.approx({name: ours[name] for name in names}, rel=1e-4)
    assert ours["best_epoch"] == theirs["best_epoch"]
    answers, others = (rows_of(run / "predictions.csv") for run in (first, second))
    assert len(answers) == ours["images/test"]
    assert [row["path"] for row in others] == [row["path"] for row in answers]  # each once, and in order
    for name in ("age_pred", "p_female"):
        wanted = [float(row[name]) for row in answers]
        assert [float(row[name]) for row in others] == pytest.approx(wanted, rel=1e-3, abs=2e-3)
    one, other = (load_checkpoint(run / "checkpoints/best.ckpt") for run in (first, second))
    for name, values in one["network"].items():
        torch.testing.assert_close(other["network"][name], values, rtol=1e-3, atol=1e-4)
    stated, restated = (run["agegender"]["calibration"] for run in (one, other))
    for name, values in stated.items():
        assert restated[name] == pytest.approx(values, rel=1e-2, abs=1e-2)


def test_two_processes_train_validate_and_test_as_one_does(run_here: Run, tmp_path: Path) -> None:
    alone = run_here("train.py", *SAME, "hydra.run.dir=one")
    assert alone.code == 0, alone.err
    # No folder is named: the second process must not make one of its own.
    both = run_script("train.py", *SAME, *TWO, "name=two", cwd=tmp_path)
    assert both.code == 0, both.err
    (run,) = (tmp_path / "logs/two").iterdir()
    assert metrics_of(run)["images/train"] % 6 == metrics_of(run)["images/val"] % 6 == 1
    assert_same_figures(tmp_path / "one", run)
    assert both.err == "" and both.out.count("epoch 1/2: ") == both.out.count("everything is in ") == 1
    assert "2 processes" in metrics_of(run)["hardware"]
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
