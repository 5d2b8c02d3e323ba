"""The folds of a sweep end in one table, one run of pooled predictions, and one report."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest
from conftest import TINY, metrics_of, run_in
from helpers.blank_plots import blank_plots

from agegender.errors import AgeGenderError
from agegender.evaluation.report.report import write_report
from agegender.evaluation.report.run_reader import read_run
from agegender.sweeps.pooling import pool_folds
from agegender.sweeps.records import read_jobs

FOLDS = (
    "-m",
    *TINY,
    "protocol=folds",
    "data.folds=2",
    "data.fold=0,1",
    "report=true",
    "name=folds",
    "trainer.max_epochs=1",
)


@pytest.fixture(scope="module")
def fold_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a real sweep over two folds, which has a pooled report, and its output. Read only."""
    where = tmp_path_factory.mktemp("folds")
    out = run_in(where, "train.py", *FOLDS)
    (sweep,) = (where / "logs/folds").iterdir()
    return sweep, out


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_sweep_prints_two_lines_per_job_then_tables(fold_sweep: tuple[Path, str]) -> None:
    lines = fold_sweep[1].splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == [
        *("job 0 (data.fold=0) starts", "job 0 (data.fold=0)"),
        *("job 1 (data.fold=1) starts", "job 1 (data.fold=1)"),
    ]
    assert "sweep: " in lines[4] and "epoch 1/" not in fold_sweep[1] and "results: " not in fold_sweep[1]


def test_table_has_mean_and_deviation_of_every_final_metric(fold_sweep: tuple[Path, str]) -> None:
    sweep, out = fold_sweep
    (group,) = json.loads((sweep / "sweep.json").read_text())["groups"]
    each = [metrics_of(sweep / str(job)) for job in (0, 1)]
    names = [name for name in each[0] if name.startswith(("val/", "test/"))]
    assert group["jobs"] == [0, 1] and list(group["metrics"]) == names and "test/age_mae" in names
    for name in names:
        found, values = group["metrics"][name], [results[name] for results in each]
        assert found["mean"] == pytest.approx(statistics.fmean(values))
        assert found["sd"] == pytest.approx(statistics.stdev(values))
        half = 12.7062 * statistics.stdev(values) / 2**0.5
        assert found["high"] - found["low"] == pytest.approx(2 * half, rel=1e-4)
        assert f"{found['mean']:.4f}" in out


def test_pooled_predictions_hold_each_face_once(fold_sweep: tuple[Path, str]) -> None:
    sweep, out = fold_sweep
    pooled = rows(sweep)
    assert pooled == [*rows(sweep / "0"), *rows(sweep / "1")]
    assert len({row["path"] for row in pooled}) == len(pooled) == 120
    assert "pooled from 2 folds, each face tested once: 120 faces" in out
    assert metrics_of(sweep)["pooled"] == {"folds": 2, "jobs": [0, 1], "missing": []}


def test_pooled_report_has_the_error_over_all_folds(fold_sweep: tuple[Path, str]) -> None:
    sweep, _ = fold_sweep
    report = json.loads((sweep / "report/report.json").read_text())
    each = [metrics_of(sweep / str(job)) for job in (0, 1)]
    expected = sum(results["test/age_mae"] * results["images/test"] for results in each) / 120
    (run,) = report["runs"]
    assert run["headline"]["age_mae"]["value"] == pytest.approx(expected, abs=1e-3) and run["images"] == 120
    assert "pooled from 2 folds" in (sweep / "report/report.html").read_text()
    assert run["copies_known"]


def test_pooling_without_a_fold_names_it_and_is_not_complete(fold_sweep: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(fold_sweep[0], tmp_path / "sweep")
    sweep = tmp_path / "sweep"
    record = json.loads((sweep / "1/job.json").read_text()) | {"score": None, "error": "it failed"}
    (sweep / "1/job.json").write_text(json.dumps(record))
    line = pool_folds(sweep, read_jobs(sweep, record["sweep"], "min"), ["data.fold"])
    assert line is not None and "pooled from 1 of 2 folds, not complete: fold 1 (failed) missing" in line
    assert rows(sweep) == rows(sweep / "0") and metrics_of(sweep)["pooled"]["missing"] == [1]
    with blank_plots():
        page = write_report([sweep], faces=0, resamples=20).read_text()
    assert "1 of 2 folds; not complete: fold 1 missing" in page


def test_pooling_refuses_faces_that_several_folds_test(fold_sweep: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(fold_sweep[0], tmp_path / "sweep")
    sweep = tmp_path / "sweep"
    shutil.copy(sweep / "0/predictions.csv", sweep / "1/predictions.csv")
    jobs = read_jobs(sweep, json.loads((sweep / "sweep.json").read_text())["sweep"], "min")
    assert str(pool_folds(sweep, jobs, ["data.fold"])).startswith("not pooled: ")
    assert pool_folds(sweep, jobs, ["data.fold", "seed"]) is None  # each face is tested by every seed


def test_damaged_record_of_pooled_folds_is_refused_in_one_line(fold_sweep: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(fold_sweep[0], tmp_path / "sweep")
    (tmp_path / "sweep/metrics.json").write_text(json.dumps(metrics_of(fold_sweep[0]) | {"pooled": 5}))
    with pytest.raises(AgeGenderError, match=r"is damaged \(pooled: 5\)"):
        read_run(tmp_path / "sweep")
