"""SIGTERM saves and ends a run, and `resume=auto` makes its command safe to repeat."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome, metrics_of
from helpers.forked import start_training
from helpers.stopped_runs import (
    EVERYTHING_RANDOM,
    FOUR,
    CrashError,
    assert_same_run,
    crash,
    stop_at,
    terminate,
    uninterrupted,
)

from agegender.errors import SignalExit
from agegender.runs.resume import latest_valid_checkpoint, resume_overrides
from agegender.runs.run_dir import run_lock
from agegender.training.callbacks.graceful_stop import handle_signals
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]


def call_before_hook(monkeypatch: pytest.MonkeyPatch, hook: str, act: Callable[[], None], times: int = 1) -> None:
    """Calls `act` once, before the call number `times` of a hook of the module."""
    called: list[bool] = []
    own = getattr(AgeGenderModule, hook)

    def act_first(self: AgeGenderModule, *args: Any) -> Any:
        called.append(True)
        if len(called) == times:
            act()
        return own(self, *args)

    monkeypatch.setattr(AgeGenderModule, hook, act_first)


@pytest.mark.slow
def test_sigterm_in_an_epoch_saves_and_resumes_to_the_same_bits(
    run_here: Run,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2, terminate)
        outcome = run_here("train.py", *FOUR, "hydra.run.dir=stopped")
    assert outcome.code == 143
    assert outcome.err.startswith("terminated in epoch 2 after 3 of 6 batches; continue with: python train.py resume=")
    assert outcome.err.count("\n") == 1
    assert run_here("train.py", "resume=stopped").code == 0
    assert_same_run(tmp_path / "stopped", uninterrupted)


@pytest.mark.slow
def test_sigterm_in_a_validation_finishes_it_and_resumes_to_the_same_bits(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("train.py", *EVERYTHING_RANDOM, "data.val_fraction=0.4", "trainer.max_epochs=3", "callbacks=ema")
    assert run_here(*asked, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        call_before_hook(
            patch, "validation_step", terminate, times=4
        )  # the first of epoch 2, with three batches per epoch
        outcome = run_here(*asked, "hydra.run.dir=stopped")
    assert outcome.code == 143 and "terminated in epoch 3 after 1 of " in outcome.err
    outcome = run_here("train.py", "resume=stopped")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_in_the_test_leaves_a_run_that_can_be_finished(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        call_before_hook(patch, "test_step", terminate)
        outcome = run_here("train.py", *TINY, "hydra.run.dir=stopped")
    assert outcome.code == 143
    assert outcome.err == f"terminated; continue with: python train.py resume={tmp_path / 'stopped'}\n"
    assert run_here("train.py", "resume=stopped").code == 0
    assert metrics_of(tmp_path / "stopped")["epochs"] == 2


def test_sigterm_before_the_first_step_reports_that_nothing_was_trained(
    run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_before_hook(monkeypatch, "configure_optimizers", terminate)
    outcome = run_here("train.py", *TINY, "hydra.run.dir=stopped")
    assert (outcome.code, outcome.err) == (143, "terminated before any training\n")


@pytest.mark.slow
def test_sigterm_saves_and_ends_the_process_within_ten_seconds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_training([*FOUR, "trainer.max_epochs=2000", "hydra.run.dir=run"], tmp_path, log)
    while process.is_alive() and not (tmp_path / "run/checkpoints/last.ckpt").exists():
        time.sleep(0.05)
    process.terminate()
    began = time.monotonic()
    process.join(30)
    assert process.exitcode == 143, log.read_text()
    assert time.monotonic() - began < 10
    assert "terminated in " in log.read_text() and "Traceback" not in log.read_text()
    assert latest_valid_checkpoint(tmp_path / "run") == tmp_path / "run/checkpoints/last.ckpt"


@pytest.mark.slow
def test_resume_auto_can_be_repeated_until_the_run_is_done(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train.py", *FOUR, "name=job", "resume=auto")
    with monkeypatch.context() as patch:
        stop_at(patch, 2, 1, terminate)
        assert run_here(*command).code == 143
    (run,) = (tmp_path / "logs/job").iterdir()
    outcome = run_here(*command)
    assert outcome.code == 0 and "from checkpoints/last.ckpt" in outcome.out
    assert [run] == list((tmp_path / "logs/job").iterdir())
    assert_same_run(run, uninterrupted)
    outcome = run_here(*command)
    assert outcome.code == 0 and "is finished: nothing is left to do" in outcome.out
    assert [run] == list((tmp_path / "logs/job").iterdir())


@pytest.mark.slow
def test_resume_auto_starts_and_continues_in_the_given_folder(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train.py", *TINY, "hydra.run.dir='my job'", "resume=auto")
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 1, crash)
        with pytest.raises(CrashError):
            run_here(*command)
    outcome = run_here(*command)
    assert outcome.code == 0 and "from checkpoints/last.ckpt" in outcome.out
    finished = metrics_of(tmp_path / "my job")
    again = run_here(*command)  # repeating a finished run is safe
    assert again.code == 0 and "epoch 1/" not in again.out
    assert metrics_of(tmp_path / "my job")["test/age_mae"] == finished["test/age_mae"]


def test_resume_auto_under_other_settings_is_refused(run_here: Run, tmp_path: Path, trained_run: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    outcome = run_here("train.py", *TINY, "model.dropout=0.1", "hydra.run.dir=run", "resume=auto")
    outcome.assert_one_line_error("model.dropout was 0.4 and is 0.1")


def copy_run(logs: Path, name: str, trained_run: Path, finished: bool = False) -> Path:
    shutil.copytree(trained_run, logs / name)
    if not finished:
        (logs / name / "metrics.json").unlink()
    time.sleep(0.01)
    (logs / name / ".hydra/overrides.yaml").touch()
    return logs / name


def test_resume_auto_finds_the_newest_unfinished_run_that_is_not_running(
    tmp_path: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def found() -> list[str]:
        arguments = resume_overrides(["name=a", "weights=x", "resume=auto"])
        return [item for item in arguments if item.startswith(("resume=", "weights="))]

    assert found() == ["weights=x"]
    copy_run(Path("logs/b"), "1", trained_run)
    copy_run(Path("logs/a"), "3", trained_run, finished=True)
    assert found() == ["weights=x"]
    older, newer = (copy_run(Path("logs/a"), name, trained_run) for name in ("2", "1"))
    assert found() == [f"resume='{newer}/checkpoints/last.ckpt'"]
    with run_lock(newer):
        assert found() == [f"resume='{older}/checkpoints/last.ckpt'"]
    shutil.rmtree(newer / "checkpoints")
    assert found() == ["weights=x"]  # stopped before its first checkpoint: starts over


@pytest.mark.parametrize("given", [["seed=1"], ["weights=small", "seed=1"]])
def test_resume_auto_knows_a_finished_run_that_was_resumed(
    given: list[str],
    tmp_path: Path,
    trained_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = copy_run(Path("logs/a"), "1", trained_run, finished=True)
    record = ["seed=1", "name=a", "resume='logs/a/1/checkpoints/last.ckpt'", "hydra.output_subdir=null"]
    (run / ".hydra/overrides.yaml").write_text(json.dumps(record))
    with pytest.raises(SystemExit) as ended:
        resume_overrides([*given, "name=a", "resume=auto"])
    assert ended.value.code == 0 and "logs/a/1 is finished" in capsys.readouterr().out
    assert resume_overrides(["seed=2", "name=a", "resume=auto"]) == ["seed=2", "name=a"]


@pytest.mark.slow
def test_resume_auto_starts_over_without_a_valid_checkpoint(run_here: Run, tmp_path: Path, trained_run: Path) -> None:
    copy_run(tmp_path, "run", trained_run)
    for name in ("last.ckpt", "best.ckpt"):
        os.truncate(tmp_path / "run/checkpoints" / name, 1000)
    outcome = run_here("train.py", *TINY, "hydra.run.dir=run", "resume=auto")
    assert outcome.code == 0
    assert outcome.err.count("skipped") == 2 and "epoch 1/2" in outcome.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_even_if_the_clean_up_after_it_fails(number: signal.Signals, tmp_path: Path) -> None:
    def evaluate() -> None:
        try:
            signal.raise_signal(number)
        finally:
            raise RuntimeError("Please call `iter(combined_loader)` first.")  # Lightning, in an evaluation's set-up

    with pytest.raises(SignalExit) as ended, handle_signals(tmp_path):
        evaluate()
    assert ended.value.code == 128 + number


def test_error_without_a_signal_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="one of the training"), handle_signals(tmp_path):
        raise RuntimeError("one of the training")
