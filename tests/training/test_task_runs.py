"""Runs with other tasks than age and gender: fewer, further, and any column of a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of
from helpers.made_tables import rows_of, write_table
from helpers.stopped_runs import CrashError, assert_same_run, crash, stop_at

from agegender.data.index.utkface import GROUPS
from agegender.runs.checkpoint import load_checkpoint
from agegender.tasks.info import read_tasks

Run = Callable[..., Outcome]
SMALL = tuple(setting for setting in TINY if not setting.startswith(("data=", "data.synthetic")))
THREE = (*TINY, "tasks=age_gender_ethnicity")
GLASSES = "+tasks.glasses={_target_: agegender.tasks.Binary, label: glasses, classes: [no, yes]}"
SMILE = "+tasks.smile={_target_: agegender.tasks.Binary, label: smile, classes: [no, yes]}"
HAIR = "+tasks.hair={_target_: agegender.tasks.Multiclass, label: color, classes: [black, brown, red]}"
WEIGHT = "+tasks.weight={_target_: agegender.tasks.Regression, label: kg, unit: kg, tolerance: 10, digits: 1}"


def predictions_of(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_metrics_match_the_predictions(run: Path) -> None:
    """Asserts that each task's test metric is that of its labeled rows in predictions.csv."""
    results, rows = metrics_of(run), predictions_of(run)
    for info in read_tasks(results["tasks"]):
        known = [row for row in rows if row[info.label]]
        labels = [float(row[info.label]) for row in known]
        assert known and results.get(f"images/test/with_{info.label}", len(rows)) == len(known)
        if info.kind == "number":
            errors = [abs(float(row[f"{info.name}_pred"]) - label) for row, label in zip(known, labels, strict=True)]
            assert results[f"test/{info.name}_mae"] == pytest.approx(sum(errors) / len(errors), abs=1e-3)
            assert all(float(row[f"{info.name}_low"]) <= float(row[f"{info.name}_high"]) for row in rows)
            assert all(float(row[f"{info.name}_std"]) > 0 for row in rows)
        else:
            chances = [info.probabilities({name: float(row[name]) for name in info.columns}) for row in known]
            assert all(sum(each) == pytest.approx(1, abs=1e-5) for each in chances)
            right = [each.index(max(each)) == label for each, label in zip(chances, labels, strict=True)]
            assert results[f"test/{info.name}_acc"] == pytest.approx(sum(right) / len(right))
        assert results[f"baseline/{info.name}_{'mae' if info.kind == 'number' else 'acc'}"] >= 0


@pytest.mark.parametrize(
    ("removed", "kept", "monitor", "columns"),
    [
        ("gender", "age", "val/age_mae", ["age", "age_pred", "age_std", "age_low", "age_high", "gender", "group"]),
        ("age", "gender", "val/gender_acc", ["gender", "p_female", "age", "group"]),
    ],
)
def test_run_without_a_task_needs_no_other_setting(
    run_here: Run, tmp_path: Path, removed: str, kept: str, monitor: str, columns: list[str]
) -> None:
    outcome = run_here("train.py", *TINY, f"~tasks.{removed}", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results, checkpoint = metrics_of(tmp_path / "run"), load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert results["monitor"] == monitor and results["best_score"] == results[monitor]
    assert not any(name.startswith(f"test/{removed}") for name in results) and f"validation {kept} " in outcome.out
    assert results["test/loss"] == pytest.approx(results[f"test/{kept}_loss"])
    assert list(predictions_of(tmp_path / "run")[0]) == ["path", *columns]
    assert list(checkpoint["agegender"]["network"]["tasks"]) == [kept]
    assert_metrics_match_the_predictions(tmp_path / "run")
    again = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    assert again.code == 0, again.err


def test_best_checkpoint_of_an_accuracy_is_the_highest(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *THREE, "monitor=val/ethnicity_acc", "optim.lr=1e-2", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        scores = [float(row["val/ethnicity_acc"]) for row in csv.DictReader(file) if row["val/ethnicity_acc"]]
    assert len(scores) == 2 and metrics_of(tmp_path / "run")["best_score"] == pytest.approx(max(scores))


def test_third_head_trains_is_tested_and_evaluated_again(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *THREE, "report=true", "loss.learned=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "no report was written" not in outcome.out and "ethnicity accuracy" in outcome.out
    results, rows = metrics_of(tmp_path / "run"), predictions_of(tmp_path / "run")
    columns = [f"p_ethnicity_{name}" for name in GROUPS]
    assert list(rows[0])[-8:] == ["gender", "p_female", "group", *columns]
    assert all(GROUPS[int(row["group"])] == results["classes"]["group"][int(row["group"])] for row in rows)
    assert_metrics_match_the_predictions(tmp_path / "run")
    again = run_here("train.py", *THREE, "fit=false", "weights=run", "hydra.run.dir=again")
    assert again.code == 0, again.err
    assert (tmp_path / "again/predictions.csv").read_bytes() == (tmp_path / "run/predictions.csv").read_bytes()
    other = run_here("train.py", *TINY, "weights=run", "hydra.run.dir=other")
    other.assert_one_line_error("don't fit this network", "tasks.ethnicity.label: group there, None here")


@pytest.mark.parametrize("more", [(), ("callbacks=ema", "loss.learned=true")], ids=["plain", "ema"])
def test_killed_run_of_three_heads_resumes_to_the_same_bits(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    chosen = (*THREE, "age=dldl", "augment=light", "trainer.max_epochs=3", *more)
    assert run_here("train.py", *chosen, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2, crash)
        with pytest.raises(CrashError):
            run_here("train.py", *chosen, "hydra.run.dir=crashed")
    outcome = run_here("train.py", "resume=crashed")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")


def test_drawn_glasses_are_learned(run_here: Run, tmp_path: Path) -> None:
    chosen = ("data.synthetic.glasses=true", GLASSES, "data.synthetic.count=400", "trainer.max_epochs=12")
    outcome = run_here("train.py", *TINY, *chosen, "optim.lr=5e-3", "model.dropout=0", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert_metrics_match_the_predictions(tmp_path / "run")
    assert results["classes"]["glasses"] == ["no", "yes"]
    assert results["test/glasses_acc"] > results["baseline/glasses_acc"] + 0.2 and results["test/glasses_auroc"] > 0.85


def three_columns(faces: Path) -> list[dict[str, object]]:
    """Returns rows with three further columns, each with holes; no row has all labels."""
    rows = rows_of(faces)
    for number, row in enumerate(rows):
        age = int(str(row["age"]))
        row["smile"] = ("yes", "no", "", "1", "0")[number % 5]
        row["color"] = ("black", "Red", "2", "brown", "")[number % 5]
        row["kg"] = "" if number % 3 == 0 else 40 + age / 2
        row["age"] = "" if number % 4 else age
    return rows


def test_table_of_three_further_columns_with_holes_trains_and_is_measured(
    run_here: Run, faces: Path, tmp_path: Path
) -> None:
    rows = three_columns(faces)
    write_table(tmp_path / "labels.csv", rows)
    table = ("data=table", "data.table=labels.csv", f"data.dir={faces}", SMILE, HAIR, WEIGHT)
    outcome = run_here("train.py", *SMALL, *table, "report=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "no report was written" not in outcome.out
    results = metrics_of(tmp_path / "run")
    figures = {name: value for name, value in results.items() if name.startswith(("val/", "test/", "baseline/"))}
    assert {"test/smile_auroc", "test/hair_acc", "test/weight_mae", "test/weight_cs10"} <= set(figures)
    assert all(value is not None and math.isfinite(value) for value in figures.values()), figures
    for label in ("age", "smile", "color", "kg"):
        known = sum(results[f"images/{split}/with_{label}"] for split in ("train", "val", "test"))
        assert known == sum(row[label] != "" for row in rows)
    assert_metrics_match_the_predictions(tmp_path / "run")
    network = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")["network"]
    assert 50 < network["tasks.weight.offset"].item() < 75  # from the training labels
    resumed = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    assert resumed.code == 0, resumed.err
    ends = [load_checkpoint(tmp_path / f"run/checkpoints/{name}.ckpt")["network"] for name in ("best", "last")]
    assert ends[1]["tasks.weight.offset"] == ends[0]["tasks.weight.offset"] == network["tasks.weight.offset"]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ((SMILE,), "tasks.smile needs a column smile: file names hold age, gender and group only; use data=table"),
        (("~tasks.age", "~tasks.gender"), "tasks is "),
        (("~tasks.gender", "monitor=val/gender_acc"), "monitor=val/gender_acc is not known"),
        (("tasks.gender.column=age_std",), "tasks.gender: age has a column age_std too; choose another name"),
        (("+tasks.path={_target_: agegender.tasks.Regression, label: age}",), "tasks.path: every prediction has a "),
        (("tasks.gender.classes=[male]",), "tasks.gender.classes=['male'] must be two"),
        (("tasks.age.weight=0", "tasks.gender.weight=0"), "all weights of the tasks are 0"),
        (
            ("+tasks.x={_target_: torch.nn.Linear, in_features: 1, out_features: 1}",),
            "tasks.x._target_: torch.nn.Linear",
        ),
        (("+tasks.x={_target_: agegender.tasks.Regression}",), "tasks.x.label is missing"),
        (("+tasks.x=3",), "tasks.x=3 has no _target_"),
        (("tasks.age.label=gender",), "tasks.gender.classes=['male', 'female']: another task gives gender the classes"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_tasks_that_cannot_be_trained_are_refused_in_one_line(
    run_here: Run, tmp_path: Path, settings: tuple[str, ...], line: str
) -> None:
    outcome = run_here("train.py", *TINY, "data.cache_dir=cache", *settings)
    outcome.assert_one_line_error(f"error: {line}")
    assert not list(tmp_path.glob("logs/*/*"))
