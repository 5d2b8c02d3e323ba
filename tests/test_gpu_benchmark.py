"""`python -m benchmarks.gpu`: its steps run without a GPU, fail and end alone, and leave what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.figures import Figure, Recorder, read_figures
from benchmarks.gpu.report import write_results
from benchmarks.gpu.runner import Outcome, Setup, run_steps
from benchmarks.gpu.steps import STEPS

# Starts as Python does, writes the step's name, fails, or first waits for longer than its limit.
STAND_IN = """#!/bin/sh
echo "$3 began"
if [ "$3" = floors ]; then sleep 60; fi
exit 1
"""


@pytest.mark.parametrize(
    ("value", "goal", "most", "verdict"),
    [(19.0, 20.0, True, "met"), (20.5, 20.0, True, "missed"), (20.0, 20.0, True, "met"), (0.9, 0.8, False, "met"),
     (0.7, 0.8, False, "missed"), (1.0, None, True, ""), ("text", 1.0, True, "")],
)  # fmt: skip
def test_figure_states_whether_its_goal_is_met(value: float | str, goal: float, most: bool, verdict: str) -> None:
    assert Figure("x", value, goal=goal, most=most).verdict == verdict


def test_recorded_figures_are_read_back(tmp_path: Path) -> None:
    record = Recorder(tmp_path / "step.jsonl")
    record("speed", 12.5, "images/s", goal=10, most=False, command="python train.py")
    record("card", "any")
    speed, card = read_figures(record.path)
    assert (speed.value, speed.unit, speed.verdict, speed.command) == (12.5, "images/s", "met", "python train.py")
    assert card == Figure("card", "any")


def test_steps_end_alone_at_their_limits_and_keep_their_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    limits = {"classic": 60.0, "floors": 0.5, "kernels": 60.0}
    ended = run_steps(Setup(tmp_path / "out", None, "cpu"), limits, minutes=5)
    assert [outcome.step for outcome in ended] == list(limits)
    assert [outcome.state for outcome in ended] == ["failed", "out of time", "failed"]
    assert ended[1].seconds < 5 and ended[1].figures == []
    assert [(tmp_path / f"out/{step}.log").read_text() for step in limits] == [f"{step} began\n" for step in limits]


@pytest.mark.slow
def test_failed_training_does_not_stop_the_next_step(tmp_path: Path) -> None:
    missing = tmp_path / "no such folder"  # the trainings of the first step fail
    limits = {"classic": 600.0, "floors": 0.2, "kernels": 600.0}
    ended = run_steps(Setup(tmp_path / "out", missing, "cpu", 60), limits, minutes=30)
    assert [outcome.state for outcome in ended] == ["failed", "out of time", "failed"]
    assert "no such folder" in (tmp_path / "out/classic.log").read_text()


def test_no_step_starts_after_the_time_is_over(tmp_path: Path) -> None:
    (outcome,) = run_steps(Setup(tmp_path, None, "cpu"), {"smoke": 100.0}, minutes=0.1)
    assert outcome.state == "not started" and not (tmp_path / "smoke.log").exists()


def test_results_are_one_table_one_json_file_and_one_archive(tmp_path: Path) -> None:
    (tmp_path / "smoke.log").write_text("all of it")
    run = tmp_path / "runs/teachers/0"
    (run / ".hydra").mkdir(parents=True)
    for name in (".hydra/config.yaml", "metrics.json", "weights.ckpt"):
        (run / name).write_text("{}")
    figures = [Figure("training", 21.0, "s", goal=20.0), Figure("rate", 3.0)]
    write_results(
        Setup(tmp_path, None, "cpu"), [Outcome("smoke", "done", 3.0, 60.0, figures)], "python -m benchmarks.gpu"
    )
    table = (tmp_path / "RESULTS.md").read_text()
    assert "| | training | 21 s | at most 20 | missed |" in table and f"torch {version('torch')}" in table
    found = json.loads((tmp_path / "results.json").read_text())
    assert [figure["verdict"] for figure in found["steps"][0]["figures"]] == ["missed", ""]
    with tarfile.open(tmp_path / "records.tar.gz") as archive:
        assert set(archive.getnames()) == {"smoke.log", "runs/teachers/0/metrics.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "smoke,smok"], f"--steps has no smok; there are {', '.join(STEPS)}"),
        (["--data", "nowhere"], "--data nowhere is no folder"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_results_are_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "RESULTS.md").write_text("earlier ones")
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "is not empty; name a new folder" in capsys.readouterr().err


def test_without_a_gpu_one_line_names_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    line = str(end.value.code)  # Python prints it, and exits with 1
    assert line.startswith("error: ") and "--device cpu" in line and "\n" not in line


@pytest.mark.slow
def test_all_steps_run_on_a_cpu(tmp_path: Path) -> None:
    quick = ("smoke", "synchronization", "kernels", "floors")
    arguments = ("--device", "cpu", "--faces", "100", "--minutes", "24", "--steps", ",".join(quick))
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    steps = {step["step"]: step for step in json.loads((tmp_path / "out/results.json").read_text())["steps"]}
    assert {name: step["state"] for name, step in steps.items()} == dict.fromkeys(quick, "done")
    differences = {figure["name"]: figure["value"] for figure in steps["smoke"]["figures"]}
    assert differences["largest difference of an age to the CPU's"] == 0
    busy = next(f["value"] for f in steps["kernels"]["figures"] if "busy" in f["name"])
    assert busy > 0
