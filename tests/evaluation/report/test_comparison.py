"""One run or two: what may be compared, and that `report.json` holds what was counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.made_runs import AGE, GENDER, SMILE, Made, make_run

from agegender.errors import AgeGenderError
from agegender.evaluation.report.analysis import to_json
from agegender.evaluation.report.comparison import Report, build_report, report_json
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics

SETTINGS = {"resamples": 200, "faces": 3, "seed": 0}


def faces(error: float, count: int = 12) -> list[Made]:
    """Answers that are all wrong by this many years; each photograph is there twice."""
    return [
        Made(f"{i}.jpg", 20 + i, 20 + i + error, i % 2, 0.1 + 0.05 * i, i % 5, photograph=f"{i // 2}")
        for i in range(count)
    ]


def report_on(*folders: Path, **settings: int) -> Report:
    return build_report(folders, SETTINGS | settings, "the command")


def test_comparison_of_runs_on_the_same_images_is_paired(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", faces(5)), make_run(tmp_path / "b", list(reversed(faces(3))))
    report = report_on(first, second)
    assert list(report.runs) == ["A", "B"] and report.warnings == []
    assert report.difference is not None
    assert vars(report.difference["age_mae"]) == pytest.approx({"value": -2, "low": -2, "high": -2})
    alone = [report_on(run).findings[""] for run in (first, second)]
    for one, both in zip(alone, report.findings.values(), strict=True):
        assert to_json(one) == to_json(both)  # a run's digits don't depend on its company


def test_comparison_of_runs_on_other_images_is_omitted_with_a_warning(tmp_path: Path) -> None:
    report = report_on(make_run(tmp_path / "a", faces(5)), make_run(tmp_path / "b", faces(3, count=10)))
    assert report.difference is None
    assert report.warnings == ["The runs were tested on different images: no difference is given."]


def test_comparison_of_runs_under_other_splits_gives_a_warning(tmp_path: Path) -> None:
    second = make_run(tmp_path / "b", faces(3), {"split_fingerprint": "other"})
    report = report_on(make_run(tmp_path / "a", faces(5)), second)
    (warning,) = report.warnings
    assert "A: abc123, B: other" in warning and "can't be compared" in warning


def test_comparison_of_runs_with_other_tasks_is_about_the_common_ones(tmp_path: Path) -> None:
    smiling = [replace(one, more={"smile": i % 2, "p_smile": 0.7}) for i, one in enumerate(faces(3))]
    first = make_run(tmp_path / "a", faces(5), tasks=(AGE,))
    second = make_run(tmp_path / "b", smiling, tasks=(SMILE, AGE))
    report = report_on(first, second)
    assert [task.name for task in report.tasks] == ["age", "smile"]
    assert report.difference is not None and set(report.difference) == {"age_mae", "age_cs5", "age_cs5_whole"}
    assert list(report.of_task(SMILE, ClassMetrics)) == ["B"] and list(report.of_task(AGE, NumberMetrics)) == ["A", "B"]
    assert report_on(first, make_run(tmp_path / "c", smiling, tasks=(SMILE,))).difference == {}


def test_comparison_refuses_tasks_of_one_name_that_predict_different_things(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", faces(5))
    second = make_run(tmp_path / "b", faces(5), tasks=(AGE, replace(GENDER, classes=("m", "f"))))
    with pytest.raises(AgeGenderError, match=r"the task gender of .*b is another one: report on each run by itself"):
        report_on(first, second)


def test_comparison_uses_the_duplicate_groups_of_either_run(tmp_path: Path) -> None:
    plain_list, knowing = make_run(tmp_path / "a", faces(5), index=False), make_run(tmp_path / "b", faces(3))
    report = report_on(plain_list, knowing)
    for label, run in report.runs.items():
        assert run.predictions.duplicates_known and report.findings[label].clusters == 6
    assert report_on(plain_list).findings[""].clusters == 12
    others = make_run(tmp_path / "c", faces(3, count=10))
    assert report_on(plain_list, others).findings["A"].clusters == 12  # other images


def test_report_refuses_three_runs_none_and_one_run_twice(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, faces(1)) for name in "abc"]
    with pytest.raises(AgeGenderError, match="one run or two, not 3: run=a or run=a,b"):
        report_on(*runs)
    with pytest.raises(AgeGenderError, match="not 0"):
        report_on()
    with pytest.raises(AgeGenderError, match="twice"):
        report_on(runs[0], tmp_path / "b" / ".." / "a")


@pytest.mark.parametrize(("name", "value"), [("resamples", 0), ("faces", -1), ("seed", -1)])
def test_report_refuses_an_invalid_setting_by_name(tmp_path: Path, name: str, value: int) -> None:
    run = make_run(tmp_path / "a", faces(1))
    with pytest.raises(AgeGenderError, match=f"{name}={value} must be at least {value + 1}"):
        report_on(run, **{name: value})
    report_on(run, **{name: value + 1})


def test_report_json_holds_every_metric_and_its_provenance(tmp_path: Path) -> None:
    known = {"best_epoch": 2, "baseline/age_mae": 15.5, "baseline/gender_acc": None, "data": "somewhere"}
    first = make_run(tmp_path / "a", [Made("x.jpg", 20, 26.5, 1, 0.25, 2, "3.5"), Made("y.jpg", 3)], known)
    (first / "csv").mkdir()
    (first / "csv/metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.5,\n0,,nan\n1,0.5,0.75", encoding="utf-8")
    report = report_on(first)
    held: dict[str, Any] = json.loads(json.dumps(report_json(report), allow_nan=False))
    assert held["command"] == "the command" and held["confidence"] == 0.95 and held["difference"] is None
    assert {name: held[name] for name in SETTINGS} == SETTINGS
    (run,) = held["runs"]
    assert (run["label"], run["run"], run["split_fingerprint"], run["data"]) == ("", "a", "abc123", "somewhere")
    assert (run["best_epoch"], run["baseline"], run["copies_known"]) == (2, {"age_mae": 15.5}, True)
    findings = report.findings[""]
    assert run["headline"] == to_json(findings.headline) and run["slices"] == to_json(findings.slices)
    age, gender = run["tasks"]["age"], run["tasks"]["gender"]
    assert (age["task"]["kind"], gender["task"]["classes"]) == ("number", ["male", "female"])
    assert age["limits"][5] == 5 and age["cumulative_score"][5:8] == [0, 0, 0.5]
    assert gender["confusion"] == [[1, 0], [1, 0]] and gender["reliability"]["images"][2] == 1
    assert age["spread"]["images"] == 1 and age["metrics"]["coverage"]["value"] == 0
    assert run["curves"]["val/loss"] == {"epoch": [1, 2], "value": [None, 0.75]}
    assert age["worst"][0] == {
        "file": "y.jpg",
        "labels": {"age": 3, "gender": 0, "group": 0},
        "columns": {"age": 30, "age_std": None, "age_low": None, "age_high": None, "p_female": 0.1},
    }
    assert gender["worst"][0]["file"] == "x.jpg" and len(run["random"]) == 2
    assert "samples" not in run
    assert gender["task"]["min_confidence"] == 0.5 and run["headline"]["gender_answered"]["value"] == 1


def test_comparison_uses_each_runs_own_min_confidence(tmp_path: Path) -> None:
    made = [Made(f"{i}.jpg", gender=i % 2, p_female=(0.6, 0.9)[i % 2]) for i in range(40)]  # men are answered wrong
    older, newer = make_run(tmp_path / "a", made), make_run(tmp_path / "b", made, min_confidence=0.8)
    held = report_json(report_on(older, newer))
    assert held["warnings"] == [] and [run["tasks"]["gender"]["task"]["min_confidence"] for run in held["runs"]] == [
        0.5,
        0.8,
    ]
    names = "gender_acc", "gender_answered", "gender_acc_answered"
    figures = [[run["headline"][name]["value"] for name in names] for run in held["runs"]]
    assert figures == [[0.5, 1, 0.5], [0.5, 0.5, 1]]
    assert [held["difference"][name]["value"] for name in names] == [0, -0.5, 0.5]
    share, right = (held["runs"][1]["headline"][name] for name in names[1:])
    assert share["low"] < 0.5 < share["high"] and (right["low"], right["high"]) == (1, 1)


def test_report_json_of_two_runs_holds_the_difference(tmp_path: Path) -> None:
    report = report_on(make_run(tmp_path / "a", faces(5)), make_run(tmp_path / "b", faces(3)))
    held = report_json(report)
    assert [run["label"] for run in held["runs"]] == ["A", "B"]
    assert held["difference"] == to_json(report.difference)
    assert np.isclose(held["difference"]["age_cs5"]["value"], 0)  # an error of five years is within five
