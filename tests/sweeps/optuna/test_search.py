"""A search adds trials to a persistent study, whatever the state of earlier trials."""

from __future__ import annotations

import csv
import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import TINY, Outcome, metrics_of, run_script
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from agegender.sweeps.optuna.storage import open_storage, study_lock

# One learning rate of three diverges at once; a trial worse than the median of earlier ones is pruned.
SPACE = ("sweep=optuna", *TINY, "optim.lr=1e-3,1e-2,1e10", "model.dropout=interval(0,0.5)", "data.batch_size=16,32")
PRUNING = ("callbacks.pruning.startup_trials=1", "callbacks.pruning.warmup_epochs=0")


def trials_of(folder: Path, name: str = "default") -> list[FrozenTrial]:
    with open_storage(None, folder) as storage:
        return optuna.load_study(study_name=name, storage=storage).get_trials()


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A study of five trials, made by train.py in a subprocess. Read only."""
    where = tmp_path_factory.mktemp("studied")
    return where, run_script("train.py", *SPACE, *PRUNING, "hydra.sweeper.n_trials=5", cwd=where, timeout=550)


@pytest.fixture
def study(studied: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of that study in `tmp_path`, to be continued."""
    shutil.copytree(studied[0] / "logs", tmp_path / "logs")
    return tmp_path / "logs/default/optuna"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_failed_trial_ends_neither_the_study_nor_the_command(studied: tuple[Path, Outcome]) -> None:
    where, outcome = studied
    assert outcome.code == 0, outcome.err
    states = [trial.state for trial in trials_of(where / "logs/default/optuna")]
    assert len(states) == 5 and TrialState.FAIL in states[:-1] and TrialState.COMPLETE in states
    failed = [row for row in rows_of(where / "logs/default/optuna") if row["state"] == "failed"]
    assert failed and all(float(row["optim.lr"]) == 1e10 for row in failed)
    assert all("the training diverged" in row["error"] for row in failed)
    assert f"{len(failed)} failed" in outcome.out


@pytest.mark.slow
def test_pruned_trial_writes_its_results_as_a_complete_one(studied: tuple[Path, Outcome]) -> None:
    where, outcome = studied
    folder = where / "logs/default/optuna"
    pruned = [trial for trial in trials_of(folder) if trial.state is TrialState.PRUNED]
    complete = [trial for trial in trials_of(folder) if trial.state is TrialState.COMPLETE]
    assert pruned and complete
    for trial in pruned:
        stopped = trial.user_attrs["pruned_after_epoch"]
        earlier = [each for each in complete if each.number < trial.number]
        assert min(each.intermediate_values[stopped] for each in earlier) < trial.intermediate_values[stopped]
        assert metrics_of(folder / str(trial.number))["epochs"] == stopped
        assert (folder / str(trial.number) / "checkpoints/best.ckpt").is_file()
        assert f"trial {trial.number}: pruned after epoch {stopped}" in outcome.out
    assert all(metrics_of(folder / str(trial.number))["epochs"] == 2 for trial in complete)


@pytest.mark.slow
def test_trials_are_ranked_by_validation_and_never_tested(studied: tuple[Path, Outcome]) -> None:
    where, _ = studied
    folder = where / "logs/default/optuna"
    rows = rows_of(folder)
    complete = [row for row in rows if row["state"] == "completed"]
    scores = [float(row["val/age_mae"]) for row in complete]
    assert scores == sorted(scores) and rows[: len(complete)] == complete
    for row, score in zip(complete, scores, strict=True):
        figures = metrics_of(folder / row["trial"])
        assert score == figures["best_score"] == figures["val/age_mae"]
        overrides = figures["overrides"].split()
        assert {f"{key}={row[key]}" for key in ("optim.lr", "model.dropout", "data.batch_size")} <= set(overrides)
    assert not list(folder.glob("*/predictions.csv"))
    assert not any(key.startswith("test/") for path in folder.glob("*/metrics.json") for key in metrics_of(path.parent))


@pytest.mark.slow
def test_study_page_shows_every_trial_and_opens_offline(studied: tuple[Path, Outcome]) -> None:
    page = (studied[0] / "logs/default/optuna/study.html").read_text()
    assert all(f"<tr><td>{number}</td>" in page for number in range(5))
    assert page.count('<img src="data:image/png') == 5  # the history, the curves, three parameters
    assert "http" not in page.replace("https://agegender", "")


@pytest.mark.slow
def test_study_prints_a_command_that_evaluates_its_best_trial(
    study: Path, studied: tuple[Path, Outcome], run_here: Callable[..., Outcome]
) -> None:
    line = next(line for line in studied[1].out.splitlines() if line.startswith("measure the best"))
    command = shlex.split(line.split(": python ")[1])
    outcome = run_here(*command, "hydra.run.dir=measured")
    assert outcome.code == 0, outcome.err
    best = rows_of(study)[0]
    figures = metrics_of(study.parents[2] / "measured")
    assert figures["val/age_mae"] == float(best["val/age_mae"]) and "test/age_mae" in figures


@pytest.mark.slow
def test_search_repeated_adds_trials_to_the_study(study: Path, run_here: Callable[..., Outcome]) -> None:
    before = trials_of(study)
    outcome = run_here("train.py", *SPACE, *PRUNING, "hydra.sweeper.n_trials=1")
    assert "continuing the study logs/default/optuna/study.db with 5 trials: 1 to run" in outcome.out
    after = trials_of(study)
    assert len(after) == 6 and [trial.params for trial in after[:5]] == [trial.params for trial in before]
    assert after[5].params not in [trial.params for trial in before]


@pytest.mark.slow
def test_killed_trial_is_repeated_and_the_study_reaches_its_number(
    study: Path, run_here: Callable[..., Outcome]
) -> None:
    space: dict[str, BaseDistribution] = {
        "optim.lr": optuna.distributions.CategoricalDistribution(["0.001", "0.01", "10000000000.0"])
    }
    with open_storage(None, study) as storage:
        old = optuna.load_study(study_name="default", storage=storage)
        old.set_user_attr("trials", 6)  # the number of trials requested before
        killed = old.ask({**space, "model.dropout": optuna.distributions.FloatDistribution(0, 0.5)})
    outcome = run_here("train.py", *SPACE, *PRUNING, "hydra.sweeper.n_trials=2")
    assert "with 5 trials: 1 to run" in outcome.out
    after = trials_of(study)
    assert len(after) == 7 and after[5].state is TrialState.FAIL and after[5].user_attrs["error"] == "interrupted"
    assert after[6].state.is_finished() and killed.params.items() <= after[6].params.items()
    assert after[6].user_attrs["repeats"] == 5


@pytest.mark.slow
def test_trial_that_ended_after_the_search_died_counts(study: Path, run_here: Callable[..., Outcome]) -> None:
    with open_storage(None, study) as storage:
        optuna.load_study(study_name="default", storage=storage).ask()
    (study / "5").mkdir()
    (study / "5/job.json").write_text(json.dumps({"score": 12.5, "error": None}))
    outcome = run_here("train.py", *SPACE, *PRUNING, "hydra.sweeper.n_trials=1")
    assert "with 6 trials: 1 to run" in outcome.out
    assert trials_of(study)[5].value == 12.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("data.image_size=24",), "data.image_size was 32 and is 24"),
        (("monitor=val/gender_acc",), "monitor was None and is val/gender_acc"),
        (("model.dropout=0.1,0.2",), "has model.dropout in 0.0 to 0.5, which Optuna can't combine with 0.1,0.2"),
    ],
)
def test_study_refuses_trials_under_other_settings(
    study: Path, run_here: Callable[..., Outcome], given: tuple[str, ...], message: str
) -> None:
    outcome = run_here("train.py", *SPACE, *PRUNING, *given)
    outcome.assert_one_line_error(message)
    assert len(trials_of(study)) == 5


@pytest.mark.slow
def test_search_fails_when_all_trials_fail(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "sweep=optuna", *TINY, "data.batch_size=0,-1", "hydra.sweeper.n_trials=2")
    assert outcome.code == 1
    assert outcome.err.startswith("error: all 2 trials failed; the last: data.batch_size=")
    assert {row["state"] for row in rows_of(tmp_path / "logs/default/optuna")} == {"failed"}


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ("hydra.sweeper.n_trials=0", 1, "hydra.sweeper.n_trials=0 has the wrong type"),
        ("hydra.sweeper.n_trails=5", 2, "hydra.sweeper.n_trails is not known; did you mean n_trials?"),
        ("model.dropuot=0.1,0.2", 2, "model.dropuot is not known; did you mean dropout?"),
        (
            "optim.lr=tag(log,interval(0,1))",
            1,
            "optim.lr=tag(log,interval(0,1)) is not a valid search range of optim.lr",
        ),
        ("hydra.sweeper.storage=nowhere", 1, "the study nowhere can't be opened"),
    ],
)
def test_search_refuses_invalid_settings_before_any_trial(
    run_here: Callable[..., Outcome], tmp_path: Path, wrong: str, code: int, message: str
) -> None:
    outcome = run_here("train.py", "sweep=optuna", *TINY, wrong)
    outcome.assert_one_line_error(message, code=code)
    assert not (tmp_path / "logs/default/optuna/0").exists()


@pytest.mark.slow
def test_two_searches_on_one_study_are_refused(study: Path, run_here: Callable[..., Outcome]) -> None:
    with study_lock(study):
        outcome = run_here("train.py", *SPACE, *PRUNING)
    assert outcome.code == 1 and "another search is running in" in outcome.err


@pytest.mark.slow
def test_lost_study_keeps_its_runs(study: Path, run_here: Callable[..., Outcome]) -> None:
    (study / "study.db").unlink()
    kept = metrics_of(study / rows_of(study)[0]["trial"])
    outcome = run_here("train.py", *SPACE, *PRUNING)
    assert outcome.code == 1 and "holds runs" in outcome.err
    assert metrics_of(study / rows_of(study)[0]["trial"]) == kept


@pytest.mark.slow
def test_study_that_is_no_database_is_refused_in_one_line(study: Path, run_here: Callable[..., Outcome]) -> None:
    (study / "study.db").write_text("these are not the trials" * 100)
    outcome = run_here("train.py", *SPACE, *PRUNING)
    outcome.assert_one_line_error("study.db can't be opened: file is not a database")


def test_search_names_the_extra_when_optuna_is_missing(
    run_here: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent: dict[str, Any] = {name: None for name in sys.modules if name.partition(".")[0] == "optuna"}
    for name in (*absent, *(name for name in sys.modules if name.startswith("agegender.sweeps.optuna."))):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = run_here("train.py", "sweep=optuna", *TINY)
    assert outcome.code == 1 and 'pip install "agegender[sweep]"' in outcome.err and "optuna" in outcome.err


@pytest.mark.slow
def test_trial_is_resumed_as_a_run_and_not_as_a_search(study: Path, run_here: Callable[..., Outcome]) -> None:
    best = rows_of(study)[0]["trial"]
    outcome = run_here("train.py", f"resume={study / best}", "trainer.max_epochs=3")
    assert outcome.code == 0, outcome.err
    assert metrics_of(study / best)["epochs"] == 3 and f"trial {best} of the study has ended" in outcome.out
    assert len(trials_of(study)) == 5


@pytest.mark.slow
def test_sweep_refuses_resume(study: Path, run_here: Callable[..., Outcome]) -> None:
    outcome = run_here("train.py", "sweep=grid", f"resume={study / '0'}")
    assert outcome.code == 1 and "use it without -m and without sweep=" in outcome.err


@pytest.mark.slow
def test_search_proposes_what_the_tpe_sampler_of_optuna_proposes(
    run_here: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a synthetic score; the second half is a separate command, whose sampler has another seed."""

    def score(rate: float, dropout: float) -> float:
        return abs(math.log10(rate / 2e-3)) + abs(dropout - 0.1)

    monkeypatch.setattr("agegender.training.train.train", lambda config: score(config.optim.lr, config.model.dropout))
    options = ("hydra.sweeper.n_startup_trials=3", "hydra.sweeper.n_trials=6", "callbacks.pruning=null")
    ranges = ("optim.lr=tag(log,interval(1e-5,1))", "model.dropout=interval(0,0.9)", "data.batch_size=16")
    wanted = optuna.create_study()
    space: dict[str, BaseDistribution] = {
        "optim.lr": FloatDistribution(1e-5, 1, log=True),
        "model.dropout": FloatDistribution(0, 0.9),
    }
    for seed in (0, 6):
        wanted.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=3)
        for _ in range(6):
            trial = wanted.ask(space)
            wanted.tell(trial, score(trial.params["optim.lr"], trial.params["model.dropout"]))
        assert run_here("train.py", "sweep=optuna", *TINY[:-1], *ranges, *options).code == 0
    assert [trial.params for trial in trials_of(tmp_path / "logs/default/optuna")] == [
        trial.params for trial in wanted.get_trials()
    ]
