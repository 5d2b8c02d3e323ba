"""Each job of a sweep in a separate process, as on a cluster: submitit's local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, TINY, metrics_of, run_script
from helpers.waiting import wait_for
from optuna.trial import FrozenTrial, TrialState

from agegender.sweeps.optuna.storage import open_storage

pytestmark = pytest.mark.slow

SUBMITIT = "hydra/launcher=submitit_local"
OPTUNA = ("sweep=optuna", *TINY, "data.batch_size=16", "model.dropout=0.2", "optim.lr=interval(1e-3,2e-3)")
LONG = ("trainer.max_epochs=25", "callbacks.early_stopping=null", "callbacks.pruning=null")
STUDY = "logs/default/optuna"


def trials_of(folder: Path) -> list[FrozenTrial]:
    with open_storage(None, folder) as storage:
        return optuna.load_study(study_name="default", storage=storage).get_trials()


def descendants(process: str) -> list[str]:
    """Returns the process ids of all descendants of a process."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [*children, *(each for child in children for each in descendants(child))]


@contextmanager
def started(where: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs train.py in the background and kills it at the end."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    with subprocess.Popen(command, cwd=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sweep_jobs_in_separate_processes_share_one_table(tmp_path: Path) -> None:
    given = ("sweep=grid", *TINY, "model.dropout=0.2", "optim.lr=1e-3,1e10", "hydra.sweep.dir=sweep")
    outcome = run_script("train.py", *given, SUBMITIT, cwd=tmp_path)
    assert outcome.code == 1 and "error: 1 of 2 jobs failed; job 1: the training diverged" in outcome.err
    better, failed = json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]
    assert (better["job"], failed["job"]) == (0, 1)
    assert better["score"] == metrics_of(tmp_path / "sweep/0")["best_score"]
    processes = [path for path in (tmp_path / "sweep/.submitit").iterdir() if path.name.isdigit()]
    assert len(processes) == 2 and "epoch 2/2" not in outcome.out  # each job writes to its own log
    assert sum("epoch 2/2" in next(each.glob("*_log.out")).read_text() for each in processes) == 1


def test_parallel_trials_share_a_study_and_are_pruned(tmp_path: Path) -> None:
    pruning = ("callbacks.pruning.startup_trials=1", "callbacks.pruning.warmup_epochs=0")
    options = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "optim.lr=tag(log,interval(1e-5,3e-2))")
    outcome = run_script("train.py", *OPTUNA, *pruning, SUBMITIT, *options, cwd=tmp_path, timeout=550)
    assert outcome.code == 0, outcome.err
    trials = trials_of(tmp_path / STUDY)
    states = [trial.state for trial in trials]
    assert len(trials) == 4 and set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        epochs = metrics_of(tmp_path / STUDY / str(trial.number))["epochs"]
        assert sorted(trial.intermediate_values) == list(range(1, epochs + 1))


def test_trial_whose_process_is_killed_fails_and_the_study_continues(tmp_path: Path) -> None:
    with started(tmp_path, *OPTUNA, *LONG, SUBMITIT, "hydra.sweeper.n_trials=2") as search:
        wait_for(tmp_path / STUDY / "0/index.csv", search)
        (controller,) = [path for path in (tmp_path / STUDY / ".submitit").iterdir() if path.name.isdigit()]
        for child in descendants(controller.name):
            os.kill(int(child), signal.SIGKILL)
        out, err = search.communicate(timeout=550)
    assert search.returncode == 0, err
    first, second = trials_of(tmp_path / STUDY)
    assert first.state is TrialState.FAIL and first.user_attrs["error"].startswith("its process died")
    assert second.state is TrialState.COMPLETE and "1 completed, 1 failed" in out


def test_killed_study_reaches_its_number_of_trials_when_repeated(tmp_path: Path) -> None:
    command = (*OPTUNA, *LONG, "hydra.sweeper.n_trials=2")
    with started(tmp_path, *command) as search:
        wait_for(tmp_path / STUDY / "1/index.csv", search)
        search.kill()
    assert [trial.state for trial in trials_of(tmp_path / STUDY)] == [TrialState.COMPLETE, TrialState.RUNNING]
    outcome = run_script("train.py", *command, cwd=tmp_path, timeout=550)
    assert outcome.code == 0, outcome.err
    assert f"continuing the study {STUDY}/study.db with 1 trial: 1 to run" in outcome.out
    _, killed, again = trials_of(tmp_path / STUDY)
    assert killed.state is TrialState.FAIL and killed.user_attrs["error"] == "interrupted"
    assert again.state is TrialState.COMPLETE and again.params == killed.params


def test_ctrl_c_ends_a_study_that_continues_with_the_same_trial(tmp_path: Path) -> None:
    command = (*OPTUNA, *LONG, "hydra.sweeper.n_trials=1")
    with started(tmp_path, *command) as search:
        wait_for(tmp_path / STUDY / "0/checkpoints/last.ckpt", search)
        search.send_signal(signal.SIGINT)
        _, err = search.communicate(timeout=550)
    assert search.returncode == 130 and err.startswith("interrupted in epoch") and len(err.splitlines()) == 1
    assert (tmp_path / STUDY / "trials.csv").read_text().splitlines()[1].endswith("interrupted")
    outcome = run_script("train.py", *command, cwd=tmp_path, timeout=550)
    assert outcome.code == 0 and "with 0 trials: 1 to run" in outcome.out
    interrupted, again = trials_of(tmp_path / STUDY)
    assert interrupted.state is TrialState.FAIL and again.state is TrialState.COMPLETE
    assert again.params == interrupted.params


@pytest.mark.parametrize("sweep", ["-m", "sweep=grid"])
def test_ctrl_c_ends_the_sweep_and_not_only_its_job(sweep: str, tmp_path: Path) -> None:
    long = ("trainer.max_epochs=25", "callbacks.early_stopping=null", "hydra.sweep.dir=sweep")
    with started(tmp_path, sweep, *TINY, *long, "optim.lr=1e-3,2e-3", "model.dropout=0.2") as jobs:
        wait_for(tmp_path / "sweep/0/checkpoints/last.ckpt", jobs)
        jobs.send_signal(signal.SIGINT)
        _, err = jobs.communicate(timeout=550)
    assert jobs.returncode == 130 and err.startswith("interrupted in epoch") and f"resume={tmp_path / 'sweep/0'}" in err
    assert not (tmp_path / "sweep/1").exists()
