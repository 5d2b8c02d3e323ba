"""`trainer.profiler`: its reports are in the run's folder, and the training is unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, run_script
from helpers.stopped_runs import differences

from agegender.runs.checkpoint import load_checkpoint

Run = Callable[..., Outcome]


@pytest.mark.slow
def test_pytorch_profiler_writes_a_trace_and_changes_no_weight(trained_run: Path, tmp_path: Path) -> None:
    outcome = run_script("train.py", *TINY, "trainer.profiler=pytorch", "hydra.run.dir=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    report = tmp_path / "run/profiler/fit-pytorch.txt"
    assert "run_training_batch" in report.read_text(encoding="utf-8")
    traces = list((tmp_path / "run/profiler").glob("*.trace.json"))
    assert any("training_step" in path.read_text(encoding="utf-8") for path in traces)
    ours, theirs = (
        load_checkpoint(run / "checkpoints/last.ckpt")["network"] for run in (tmp_path / "run", trained_run)
    )
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("name", ["simple", "advanced"])
def test_lightning_profilers_report_the_training_step(name: str, run_here: Run, tmp_path: Path) -> None:
    short = ("trainer.max_epochs=1", "test=false")
    outcome = run_here("train.py", *TINY, *short, f"trainer.profiler={name}", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    report = tmp_path / f"run/profiler/fit-{name}.txt"
    assert str(Path("run/profiler") / report.name) in outcome.out
    rows = [row for row in report.read_text(encoding="utf-8").splitlines() if ".training_step" in row]
    assert rows
    if name == "simple":
        assert re.search(r"\|\s+6\s+\|", rows[0])  # number of calls


def test_unknown_profiler_is_refused_in_one_line_with_the_choices(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *TINY, "trainer.profiler=xla", "hydra.run.dir=run")
    outcome.assert_one_line_error("trainer.profiler=xla is not known; choose from advanced, pytorch, simple")
    assert not (tmp_path / "run").exists()
