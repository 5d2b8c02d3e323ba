"""The same command continues an interrupted sweep; a sweep of other settings is never mixed in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, Outcome, metrics_of
from filelock import FileLock
from helpers.stopped_runs import press_ctrl_c
from helpers.waiting import wait_for
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from agegender.config.compose import compose_command
from agegender.config.overrides import as_written
from agegender.errors import AgeGenderError
from agegender.runs.resume import resume_overrides
from agegender.runs.run_dir import LOCK_FILE
from agegender.sweeps import continuation
from agegender.sweeps.continuation import choose_folder, prepare_job, release_folder, varied_keys
from agegender.sweeps.settings import settings_digest
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _release_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins in an empty folder, and ends without the locks of interrupted sweeps."""
    monkeypatch.chdir(tmp_path)
    yield
    for folder in list(continuation._locks):
        release_folder(folder)


@cache
def composed(*settings: str) -> DictConfig:
    """Returns the config of a training. Read only."""
    return compose_command("train", settings, hydra=True)


def multirun(*task: str, settings: tuple[str, ...] = ()) -> DictConfig:
    """Returns the config of a multirun with these overrides, of which `settings` take effect."""
    config = deepcopy(composed("name=a", *settings))
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.mode = RunMode.MULTIRUN
        config.hydra.overrides.task = ["name=a", *task]
    return config


def record(folder: Path, settings: str, finished: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"sweep": "id", "settings": settings, "varied": ["seed"], "monitor": "val/age_mae", "finished": finished}
    (folder / "sweep.json").write_text(json.dumps(content | {"jobs": []}))


def started(*task: str, finished: bool = False) -> Path:
    """Starts a sweep with these overrides, and leaves it unfinished or finished; returns its folder."""
    config = multirun(*task)
    settings, folder = choose_folder(config), Path(config.hydra.sweep.dir)
    record(folder, settings, finished)
    release_folder(folder)
    return folder


def chosen(*task: str, settings: tuple[str, ...] = ()) -> Path:
    config = multirun(*task, settings=settings)
    choose_folder(config)
    return Path(config.hydra.sweep.dir)


def test_unfinished_sweep_of_the_same_command_is_continued() -> None:
    folder = started("seed=0,1", "data.batch_size=8")
    config = multirun("data.batch_size=8", "seed=0,1")
    choose_folder(config)
    assert config.hydra.sweep.dir == str(folder)
    assert as_written(config.hydra.overrides.hydra) == [f"hydra.sweep.dir='{folder}'"]  # for the jobs
    release_folder(folder)
    assert chosen("seed=0,1", "data.num_workers=0", "data.batch_size=8") == folder  # hardware may differ


def test_sweep_of_other_settings_is_another_sweep() -> None:
    folder = started("seed=0,1")
    assert chosen("seed=0,1,2") != folder
    assert chosen("seed=0,1", settings=("optim.lr=0.5",)) != folder  # as if a config file had changed
    assert chosen("seed=0,1", settings=("test=false",)) != folder


def test_finished_sweep_starts_anew_without_resume_auto() -> None:
    folder = started("seed=0,1", finished=True)
    assert chosen("seed=0,1", "resume=auto", settings=("resume=auto",)) == folder
    release_folder(folder)
    assert chosen("seed=0,1") != folder


def test_resume_null_starts_anew() -> None:
    folder = started("seed=0,1")
    assert chosen("seed=0,1", "resume=null") != folder


def test_running_sweep_is_not_taken_and_its_folder_is_refused() -> None:
    folder = started("seed=0,1")
    lock = FileLock(folder / LOCK_FILE)
    lock.acquire()
    try:
        assert chosen("seed=0,1") != folder
        config = multirun("seed=0,1")
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(folder)
        with pytest.raises(AgeGenderError, match="another process runs the sweep"):
            choose_folder(config)
    finally:
        lock.release()


@pytest.mark.parametrize("task", [("seed=0,1,2",), ("seed=0,1", "resume=null")])
def test_given_folder_with_another_trained_sweep_is_refused(tmp_path: Path, task: tuple[str, ...]) -> None:
    (tmp_path / "sweep/0/checkpoints").mkdir(parents=True)
    config = multirun("seed=0,1")
    record(tmp_path / "sweep", settings_digest(config, ["seed=0,1"], None))

    def given(*overrides: str) -> str:
        config = multirun(*overrides)
        with read_write(config.hydra):
            config.hydra.sweep.dir = "sweep"
        return choose_folder(config)

    given("seed=0,1")
    with pytest.raises(AgeGenderError, match=r"^hydra\.sweep\.dir=sweep holds another sweep or run: set"):
        given(*task)


def test_job_with_another_run_in_its_folder_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "sweep", "settings")
    (tmp_path / "sweep/0/checkpoints").mkdir(parents=True)
    written = json.dumps({"sweep": "id", "job": 0, "settings": "of another job", "score": 1.0, "error": None})
    (tmp_path / "sweep/0/job.json").write_text(written)
    config = multirun("seed=3")
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir, config.hydra.job.num = str(tmp_path / "sweep"), 0
        config.hydra.runtime.output_dir = str(tmp_path / "sweep/0")
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(config)
        with pytest.raises(AgeGenderError, match="holds a run with other settings"):
            prepare_job(config)
    finally:
        HydraConfig.instance().cfg = before
    assert (tmp_path / "sweep/0/job.json").read_text() == written


def test_varied_keys_are_those_with_several_values() -> None:
    config = multirun("seed=0,1", "+data.fold=range(3)", "optim.lr=1e-3", "model.trunk.channels=[8,16]")
    assert varied_keys(config) == ["seed", "data.fold"]
    grid = compose_command("train", ["sweep=grid"], hydra=True)
    with read_write(grid.hydra):
        grid.hydra.overrides.task = ["sweep=grid", "model.dropout=0.1"]
    assert varied_keys(grid) == ["optim.lr"]


def test_resume_of_a_search_by_a_word_is_refused() -> None:
    with pytest.raises(AgeGenderError, match="sweep=optuna continues its study with the same command"):
        resume_overrides(["sweep=optuna", "resume=auto"])


def test_stopped_sweep_continues_where_it_was(
    run_here: Run, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train.py", "-m", *TINY, "seed=3,0", "name=a")
    begin, seen = AgeGenderModule.on_train_batch_start, []

    def begin_or_stop(self: AgeGenderModule, faces: Any, batch_idx: int) -> None:
        if (self.current_epoch, batch_idx) == (1, 1):
            seen.append(1)
            if len(seen) == 2:  # in the second job
                press_ctrl_c()
        begin(self, faces, batch_idx)

    monkeypatch.setattr(AgeGenderModule, "on_train_batch_start", begin_or_stop)
    stopped = run_here(*command)
    assert stopped.code == 130 and stopped.err.endswith("; the same command again continues the sweep\n")
    (sweep,) = (tmp_path / "logs/a").iterdir()
    first = (sweep / "0/metrics.json").read_bytes()
    outcome = run_here(*command)
    assert outcome.code == 0, outcome.err
    assert f"continuing the sweep {sweep.relative_to(tmp_path)}: 1 finished job\n" in outcome.out
    assert "job 0 (seed=3): val/age_mae" in outcome.out and "finished before" in outcome.out
    assert "job 1 (seed=0) continues from last.ckpt\n" in outcome.out
    assert [sweep] == list((tmp_path / "logs/a").iterdir()) and (sweep / "0/metrics.json").read_bytes() == first
    assert (sweep / "1/predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()
    table = json.loads((sweep / "sweep.json").read_text())
    assert table["finished"] and sorted(job["job"] for job in table["jobs"]) == [0, 1]
    assert {job["score"] for job in table["jobs"]} == {metrics_of(sweep / str(i))["best_score"] for i in (0, 1)}
    again = run_here(*command, "resume=auto")
    assert again.code == 0 and again.out.count("finished before") == 2 and "sweep: " in again.out


@pytest.mark.slow
def test_killed_sweep_continues_where_it_was(run_here: Run, tmp_path: Path) -> None:
    long = ("trainer.max_epochs=40", "callbacks.early_stopping=null", "name=a")
    command = ("-m", *TINY, *long, "seed=0,1,2")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (found := list((tmp_path / "logs/a").glob("*/sweep.json"))):
        assert process.poll() is None
    sweep = found[0].parent
    wait_for(sweep / "1/checkpoints/last.ckpt", process)
    process.kill()
    process.communicate()
    assert not (sweep / "1/metrics.json").exists() and not (sweep / "2").exists()
    assert not json.loads((sweep / "sweep.json").read_text())["finished"]
    first = (sweep / "0/metrics.json").read_bytes()
    outcome = run_here("train.py", *command)
    assert outcome.code == 0, outcome.err
    assert "job 1 (seed=1) continues from" in outcome.out and "job 2 (seed=2) starts" in outcome.out
    assert [sweep] == list((tmp_path / "logs/a").iterdir()) and (sweep / "0/metrics.json").read_bytes() == first
    whole = run_here("train.py", *TINY, *long, "seed=1", "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    assert (sweep / "1/predictions.csv").read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()
    assert len(json.loads((sweep / "sweep.json").read_text())["groups"][0]["jobs"]) == 3
