"""Runs of train.py on tables: training, missing labels and evaluation."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Outcome, metrics_of
from helpers.composed import RefusalOf, refusal_of
from helpers.made_tables import half_labeled, rows_of, write_table

Run = Callable[..., Outcome]
SMALL = (
    *(setting for setting in TINY if not setting.startswith(("data=", "data.synthetic"))),
    *("trainer.max_epochs=1", "callbacks.image_logger=null"),
)


@pytest.fixture
def run_table(run_here: Run, faces: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs train.py on a table of rows about the drawn faces."""

    def run(rows: list[dict[str, object]], *settings: str) -> Outcome:
        write_table(tmp_path / "labels.csv", rows)
        table = ("data=table", "data.table=labels.csv", f"data.dir={faces}")
        return run_here("train.py", *SMALL, *table, "hydra.run.dir=run", *settings)

    return run


def rows_without(label: str, faces: Path) -> list[dict[str, object]]:
    """Returns complete rows without one label column."""
    return [{name: cell for name, cell in row.items() if name != label} for row in rows_of(faces)]


def predictions_of(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of_one_gender(faces: Path) -> list[dict[str, object]]:
    return [row | {"gender": "female"} for row in rows_of(faces)]


def test_table_of_file_name_labels_trains_as_the_folder(
    run_here: Run, run_table: Run, faces: Path, tmp_path: Path
) -> None:
    assert run_table(rows_of(faces)).code == 0
    assert run_here("train.py", *SMALL, f"data.dir={faces}", "hydra.run.dir=folder").code == 0
    by_table, by_name = metrics_of(tmp_path / "run"), metrics_of(tmp_path / "folder")
    assert by_table.pop("table") == "labels.csv"
    others = {"seconds_per_epoch", "images_per_second", "train_seconds", "overrides"}
    assert {key: by_table[key] for key in by_table if key not in others} == {
        key: by_name[key] for key in by_name if key not in others
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ("report=true",),
        ("age=classes", "loss.learned=true", "callbacks=ema"),
        ("age=dldl", "trainer=mixed", "trainer.accelerator=cpu", "data.on_device=true"),
        ("tasks.gender.output=sigmoid", "data.batch_size=1", "data.limit=90"),
    ],
    ids=" ".join,
)
def test_half_labeled_table_trains_to_finite_metrics_of_the_labeled_faces(
    run_table: Run, faces: Path, tmp_path: Path, change: tuple[str, ...]
) -> None:
    outcome = run_table(half_labeled(faces), *change)
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    figures = {name: value for name, value in results.items() if name.startswith(("val/", "test/", "baseline/"))}
    assert len(figures) >= 18 and all(math.isfinite(value) for value in figures.values())
    assert "missing labels: age of 60 images, gender of 20 images;" in outcome.out
    answers = predictions_of(tmp_path / "run")
    aged = [row for row in answers if row["age"]]
    gendered = [row for row in answers if row["gender"]]
    assert 0 < len(aged) == results["images/test/with_age"] < len(answers) == results["images/test"]
    assert 0 < len(gendered) == results["images/test/with_gender"] < len(answers)
    errors = [abs(float(row["age"]) - float(row["age_pred"])) for row in aged]
    assert sum(errors) / len(errors) == pytest.approx(results["test/age_mae"], abs=1e-3)
    right = [(float(row["p_female"]) > 0.5) == (row["gender"] == "1") for row in gendered]
    assert sum(right) / len(right) == pytest.approx(results["test/gender_acc"])
    assert ("report=true" in change) == (tmp_path / "run/report/report.html").is_file()


@pytest.mark.slow
def test_evaluation_of_a_table_covers_every_image_as_predict_does(
    run_here: Run, run_table: Run, faces: Path, tmp_path: Path, trained_run: Path
) -> None:
    rows = half_labeled(faces)
    for number, row in enumerate(rows):
        row["group"] = ("b $ b", "a", "")[number % 3]
    judged = run_table(rows, "fit=false", f"weights={trained_run}", "data.split=test", "report=true")
    assert judged.code == 0, judged.err
    assert "best constant prediction (test)" in " ".join(judged.out.split()) and "validation" not in judged.out
    assert "no report was written" not in judged.out
    results = metrics_of(tmp_path / "run")
    assert not any(name.startswith("val/") for name in results) and results["images/test"] == 120
    assert results["monitor"] == "test/age_mae" and results["best_score"] == results["test/age_mae"]
    assert results["split"] == "test" and results["classes"]["group"] == ["a", "b $ b"]
    ages = sorted(int(str(row["age"])) for row in rows if row["age"] != "")
    median = (ages[29] + ages[30]) / 2
    assert results["baseline/age_mae"] == pytest.approx(sum(abs(age - median) for age in ages) / 60)
    assert results["baseline/from"] == "the test images themselves"

    predicted = run_here("predict.py", "detect=never", f"img={faces}", f"weights={trained_run}", "out=answers.json")
    assert predicted.code == 0, predicted.err
    expected: dict[str, Any] = {row["path"]: row for row in json.loads((tmp_path / "answers.json").read_text())}
    answers = predictions_of(tmp_path / "run")
    assert {row["path"] for row in answers} == set(expected) and len(answers) == 120
    for answer in answers:
        for name, digits in (("age", 0.006), ("age_std", 0.006), ("age_low", 0), ("age_high", 0), ("p_female", 6e-5)):
            mine = answer["age_pred" if name == "age" else name]
            assert float(mine) == pytest.approx(expected[answer["path"]][name], abs=digits), name

    report = json.loads((tmp_path / "run/report/report.json").read_text())["runs"][0]
    assert [report["images"], *(report["tasks"][name]["images"] for name in ("age", "gender"))] == [120, 60, 100]
    assert report["headline"]["age_mae"]["value"] == pytest.approx(results["test/age_mae"], abs=1e-3)
    assert [part["name"] for part in report["slices"]["group"]] == ["a", "b $ b"]


def test_evaluation_of_a_folder_covers_every_image(
    run_here: Run, faces: Path, tmp_path: Path, trained_run: Path
) -> None:
    judged = ("fit=false", f"weights={trained_run}", "data.split=test", f"data.dir={faces}", "data.limit=1")
    assert run_here("train.py", *SMALL, *judged, "hydra.run.dir=run").code == 0
    assert metrics_of(tmp_path / "run")["images/test"] == 1 and len(predictions_of(tmp_path / "run")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacking", "known", "monitor"),
    [("age", "gender", ("monitor=val/gender_acc",)), ("gender", "age", ())],
)
def test_table_without_a_label_column_trains_the_other_task(
    run_table: Run, faces: Path, tmp_path: Path, lacking: str, known: str, monitor: tuple[str, ...]
) -> None:
    outcome = run_table(rows_without(lacking, faces), *monitor, "report=true")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    for stage in ("val", "test"):
        of_lacking = {results[name] for name in results if name.startswith(f"{stage}/{lacking}")}
        of_known = [results[name] for name in results if name.startswith(f"{stage}/{known}")]
        assert of_lacking == {None} and all(math.isfinite(value) for value in of_known)
        assert results[f"{stage}/loss"] == pytest.approx(results[f"{stage}/{known}_loss"])
    assert not any(name.startswith(f"baseline/{lacking}") for name in results)
    assert "nan" not in outcome.out and "no report was written" not in outcome.out
    page = (tmp_path / "run/report/report.html").read_text(encoding="utf-8")
    assert f"This run was tested on images without any {lacking}." in page
    stds = {row["age_std"] for row in predictions_of(tmp_path / "run")}
    assert (stds == {""}) == (lacking == "age")  # no std without age labels


def test_table_of_one_gender_trains_and_has_no_auroc(run_table: Run, faces: Path, tmp_path: Path) -> None:
    assert run_table(rows_of_one_gender(faces)).code == 0
    assert metrics_of(tmp_path / "run")["test/gender_auroc"] is None
    outcome = run_table(rows_of_one_gender(faces), "monitor=val/gender_auroc")
    line = "monitor=val/gender_auroc, but all validation faces have the same gender: set monitor=val/age_mae"
    outcome.assert_one_line_error(line)


@pytest.mark.parametrize(
    ("lacking", "monitor", "line"),
    [
        ("age", (), "monitor=val/age_mae, but no validation face has the label age: set monitor=val/gender_acc"),
        (
            "gender",
            ("monitor=val/gender_loss",),
            "monitor=val/gender_loss, but no validation face has the label gender: set monitor=val/age_mae",
        ),
    ],
)
def test_table_without_the_monitored_label_is_refused(
    run_table: Run, faces: Path, lacking: str, monitor: tuple[str, ...], line: str
) -> None:
    outcome = run_table(rows_without(lacking, faces), *monitor)
    outcome.assert_one_line_error(line)


@pytest.mark.parametrize("split", ["test", "content"])
def test_evaluation_of_genders_alone_needs_no_other_setting(
    run_table: Run, faces: Path, tmp_path: Path, trained_run: Path, split: str
) -> None:
    outcome = run_table(rows_without("age", faces), "fit=false", f"weights={trained_run}", f"data.split={split}")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert results["best_score"] is None and results["test/age_mae"] is None
    assert 0 <= results["test/gender_acc"] <= 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ("data.split=test",),
            "data.split=test leaves no images to train on: evaluate a model with fit=false weights=",
        ),
        (("data.split=test", "fit=false", "weights=x", "test=false"), "data.split=test and test=false leave nothing"),
        (("data.table=null",), "neither data.dir nor data.table is set: "),
        (("data.table=nowhere.csv",), "data.table=nowhere.csv: there is no such file"),
        (("data.table=labels.tsv",), "data.table=labels.tsv must end in .csv or .parquet"),
    ],
)
def test_table_refuses_invalid_settings_in_one_line(
    refusal_of: RefusalOf, settings: tuple[str, ...], line: str
) -> None:
    assert line in refusal_of(*SMALL, "data=table", "data.dir=null", *settings)


@pytest.mark.slow
def test_half_labeled_run_resumes(run_table: Run, run_here: Run, faces: Path, tmp_path: Path) -> None:
    assert run_table(half_labeled(faces)).code == 0
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    results: dict[str, Any] = metrics_of(tmp_path / "run")
    assert results["epochs"] == 2 and math.isfinite(results["test/loss"])
