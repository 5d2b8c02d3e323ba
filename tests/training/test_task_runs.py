"""Runs with other tasks than age and gender: fewer, further, and any column of a table."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.composed import RefusalOf, refusal_of
from helpers.made_tables import half_labeled, write_table
from helpers.stopped_runs import CrashError, assert_same_run, crash, stop_at

from agegender.data.index.utkface import GROUPS
from agegender.prediction.export.export import export
from agegender.runs.checkpoint import load_checkpoint
from agegender.tasks.info import read_tasks

Run = Callable[..., Outcome]
NETWORK = tuple(setting for setting in TINY if not setting.startswith("data"))
PIXELS = ("data.image_size=32", "data.batch_size=16")
THREE = (*TINY, "tasks=age_gender_ethnicity")
SMILE = "+tasks.smile={_target_: agegender.tasks.Binary, label: smile, classes: [no, yes]}"
FURTHER = (
    SMILE,
    "+tasks.mood={_target_: agegender.tasks.Multiclass, label: mood, classes: [sad, calm, happy], weight: 0.5}",
    "+tasks.tall={_target_: agegender.tasks.Regression, label: height, unit: m, tolerance: 0.1}",
)


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
    outcome = run_here("train.py", *TINY, f"~tasks.{removed}", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results, checkpoint = metrics_of(tmp_path / "run"), load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert results["monitor"] == monitor and results["best_score"] == results[monitor]
    assert not any(name.startswith(f"test/{removed}") for name in results) and f", {kept} " in outcome.out
    assert results["test/loss"] == pytest.approx(results[f"test/{kept}_loss"])
    assert list(predictions_of(tmp_path / "run")[0]) == ["path", *columns]
    assert list(checkpoint["agegender"]["network"]["tasks"]) == [kept]
    assert_metrics_match_the_predictions(tmp_path / "run")
    again = run_here("train.py", "resume=run", "trainer.max_epochs=2", "test=false")
    assert again.code == 0, again.err


def test_best_checkpoint_of_an_accuracy_is_the_highest(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here(
        "train.py", *THREE, "monitor=val/ethnicity_acc", "optim.lr=1e-2", "test=false", "hydra.run.dir=run"
    )
    assert outcome.code == 0, outcome.err
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        scores = [float(row["val/ethnicity_acc"]) for row in csv.DictReader(file) if row["val/ethnicity_acc"]]
    assert len(scores) == 2 and metrics_of(tmp_path / "run")["best_score"] == pytest.approx(max(scores))


@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR names no folder of real faces")
def test_third_head_on_utkface_trains_resumes_is_reported_predicted_and_exported(run_here: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    faces = Path(os.environ["UTKFACE_DIR"]).resolve()
    drawn = ("data=synthetic", "data.synthetic.count=120", "data.synthetic.size=64")
    settings = [*(item for item in TINY if item not in drawn), f"data.dir={faces}", "data.limit=600"]
    command = ("tasks=age_gender_ethnicity", "report=true", f"data.cache_dir={tmp_path / 'cache'}", "hydra.run.dir=run")
    outcome = run_here("train.py", *settings, *command, "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=2")
    assert outcome.code == 0 and metrics_of(tmp_path / "run")["epochs"] == 2, outcome.err
    assert_metrics_match_the_predictions(tmp_path / "run")
    assert (tmp_path / "run/report/ethnicity_confusion.png").is_file()
    export("run/model.onnx", weights="run")
    face = sorted(faces.glob("*.jpg"))[0]
    rows = []
    for options in (("weights=run",), ("weights=run/model.onnx", "backend=onnx")):
        outcome = run_here("predict.py", f"img={face}", "detect=never", "out=-", *options)
        assert outcome.code == 0, outcome.err
        rows.append(json.loads(outcome.out.splitlines()[-1]))
    names = [f"p_ethnicity_{name}" for name in GROUPS]
    assert rows[0].keys() == rows[1].keys() >= {*names, "ethnicity"}
    assert [rows[0][name] for name in names] == pytest.approx([rows[1][name] for name in names], abs=1e-3)


@pytest.mark.slow
def test_report_of_a_third_head_is_written(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *THREE, "report=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "no report was written" not in outcome.out
    assert (tmp_path / "run/report/ethnicity_confusion.png").is_file()


def test_third_head_trains_is_tested_and_evaluated_again(run_here: Run, refusal_of: RefusalOf, tmp_path: Path) -> None:
    outcome = run_here("train.py", *THREE, "loss.learned=true", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "ethnicity accuracy" in outcome.out
    results, rows = metrics_of(tmp_path / "run"), predictions_of(tmp_path / "run")
    columns = [f"p_ethnicity_{name}" for name in GROUPS]
    assert list(rows[0])[-8:] == ["gender", "p_female", "group", *columns]
    assert all(GROUPS[int(row["group"])] == results["classes"]["group"][int(row["group"])] for row in rows)
    assert_metrics_match_the_predictions(tmp_path / "run")
    again = run_here("train.py", *THREE, "fit=false", "weights=run", "hydra.run.dir=again")
    assert again.code == 0, again.err
    assert (tmp_path / "again/predictions.csv").read_bytes() == (tmp_path / "run/predictions.csv").read_bytes()
    other = refusal_of(*TINY, "weights=run")
    assert "don't fit this network" in other and "tasks.ethnicity.label: group there, None here" in other


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def table(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a table with holes in age, gender and three further columns."""
    rows = half_labeled(faces)
    for number, row in enumerate(rows):
        row |= {"smile": ("no", "YES", "", "1")[number % 4], "mood": ("happy", "", "sad", "calm", "0")[number % 5]}
        row |= {"height": 1.2 + number / 200 if number % 7 else "NA"}
    path = write_table(tmp_path_factory.mktemp("table") / "labels.csv", rows)
    return ("data=table", f"data.table={path}", f"data.dir={faces}")


@pytest.mark.slow
# LitData leaves the last shard of an epoch open for the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_further_columns_with_holes_train_and_are_measured_from_a_table_and_from_shards(
    run_here: Run, table: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = run_here("train.py", *NETWORK, *PIXELS, *table, *FURTHER, "report=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "missing labels: age of 60 images, gender of 20 images, smile of 30 images, mood of 24 images" in outcome.out
    assert "no report was written" not in outcome.out
    results = metrics_of(run)
    figures = {name: value for name, value in results.items() if name.startswith(("val/", "test/", "baseline/"))}
    assert {"test/smile_auroc", "val/mood_acc", "test/tall_mae", "test/tall_cs0.1"} <= set(figures)
    assert all(value is not None and math.isfinite(value) for value in figures.values()), figures
    assert_metrics_match_the_predictions(run)

    assert run_here("agegender/data/streaming/__main__.py", *table, *FURTHER, "out=shards").code == 0
    streamed = ("data=streaming", "data.dir=shards", "fit=false", "weights=run", *PIXELS[1:])
    outcome = run_here("train.py", *NETWORK, *streamed, *FURTHER, "hydra.run.dir=streamed")
    assert outcome.code == 0, outcome.err
    for name in ("index.csv", "predictions.csv"):
        assert (tmp_path / "streamed" / name).read_bytes() == (run / name).read_bytes()
    theirs = metrics_of(tmp_path / "streamed")
    assert {name: theirs[name] for name in figures} == pytest.approx(figures, rel=1e-5)


def test_scale_and_offset_from_the_training_labels_are_kept_by_resume(
    run_here: Run, table: tuple[str, ...], tmp_path: Path
) -> None:
    only = ("~tasks.age", "~tasks.gender", FURTHER[-1], "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run_here("train.py", *NETWORK, *PIXELS, *table, *only).code == 0
    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")["network"]
    assert 1.4 < best["tasks.tall.offset"].item() < 1.6 and 0.1 < best["tasks.tall.scale"].item() < 0.25
    resumed = run_here("train.py", "resume=run", "trainer.max_epochs=2")
    assert resumed.code == 0, resumed.err
    last = load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["network"]
    assert all(torch.equal(last[f"tasks.tall.{name}"], best[f"tasks.tall.{name}"]) for name in ("offset", "scale"))
    assert_metrics_match_the_predictions(tmp_path / "run")


@pytest.mark.slow
def test_glasses_on_drawn_faces_are_learned_as_a_third_task(run_here: Run, tmp_path: Path) -> None:
    settings = [setting for setting in TINY if "count" not in setting and "epochs" not in setting]
    outcome = run_here(
        *("train.py", *settings, "data.synthetic.count=600", "data.synthetic.glasses=true", "trainer.max_epochs=12"),
        "+tasks.glasses={_target_: agegender.tasks.Binary, label: glasses, classes: [no, yes]}",
        "hydra.run.dir=run",
    )
    assert outcome.code == 0, outcome.err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["test/glasses_auroc"] > 0.8 and metrics["data"].startswith("drawn faces")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
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
    refusal_of: RefusalOf, tmp_path: Path, settings: tuple[str, ...], line: str
) -> None:
    assert refusal_of(*TINY, "data.cache_dir=cache", *settings).startswith(line)
    assert not list(tmp_path.glob("logs/*/csv"))


def test_label_that_file_names_lack_is_refused_in_one_line(refusal_of: RefusalOf) -> None:
    line = "a task needs the label smile, but there are only age, gender, group in file names: use data=table"
    assert refusal_of(*TINY, SMILE).startswith(line)
