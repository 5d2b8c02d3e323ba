"""`agegender compare`: its table, sentences and JSON, and the runs that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome
from helpers.made_runs import AGE, GENDER, SMILE, Made, make_run

from agegender.errors import AgeGenderError
from agegender.evaluation.compare.compare import compare
from agegender.evaluation.compare.pairing import select
from agegender.evaluation.compare.words import difference_sentence, mcnemar_sentence
from agegender.evaluation.html.metric_format import metric_column
from agegender.evaluation.report.comparison import build_report, report_json
from agegender.evaluation.report.page import build_page
from agegender.evaluation.report.run_reader import read_run
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.mcnemar import McNemar

Run = Callable[..., Outcome]


def faces(error: float, wrong: range = range(0), count: int = 40) -> list[Made]:
    """Predictions with this age error and these wrong genders; there are two copies of each photograph."""
    p_female = [abs(i % 2 - (0.9 if i in wrong else 0.1)) for i in range(count)]
    return [
        Made(f"{i:02}.jpg", 20 + i, 20 + i + error, i % 2, p_female[i], photograph=f"{i // 2}") for i in range(count)
    ]


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A, and B with smaller age errors; 2 genders are wrong in A only, 9 in B only, and 1 in both."""
    first = make_run(tmp_path / "a", faces(5, range(3)))
    second = make_run(tmp_path / "b", faces(3, range(2, 12)))
    return [str(first), str(second)]


def test_comparison_holds_differences_tests_and_sentences(two: list[str], tmp_path: Path) -> None:
    found = compare(two, out=str(tmp_path / "made/by.json"), resamples=200)
    assert json.loads((tmp_path / "made/by.json").read_text()) == found
    age = found["metrics"]["age_mae"]
    assert (age["A"]["value"], age["B"]["value"]) == pytest.approx((5, 3))
    assert age["difference"] == pytest.approx({"value": -2, "low": -2, "high": -2})
    assert found["mcnemar"]["gender"] == {
        "images": 40,
        "only_a": 9,
        "only_b": 2,
        "p": pytest.approx(2 * (1 + 11 + 55) / 2**11),
    }
    assert "B's age MAE is lower by 2.00 years (2.00 to 2.00)." in found["sentences"]
    assert "CS@5: no difference that these 40 faces can show (+0.0 to +0.0 points)." in found["sentences"]
    tested = "gender: only A is right on 9 faces, only B on 2; McNemar's exact test: p = 0.0654."
    assert found["sentences"][-1] == tested
    assert (found["images"], found["clusters"], found["common"], found["warnings"]) == (40, 20, False, [])
    assert found["runs"] == {
        "A": {"run": "a", "split_fingerprint": "abc123"},
        "B": {"run": "b", "split_fingerprint": "abc123"},
    }
    assert found["command"].startswith("agegender compare run=") and "resamples=200" in found["command"]


def test_comparison_uses_the_paired_bootstrap_of_the_report(two: list[str]) -> None:
    report = build_report([Path(name) for name in two], {"resamples": 200, "faces": 3, "seed": 0}, "")
    found = compare(two, resamples=200)
    shown = {name: each["difference"] for name, each in found["metrics"].items()}
    assert shown == report_json(report)["difference"]


def test_command_prints_a_table_and_sentences(two: list[str], run_here: Run) -> None:
    outcome = run_here("agegender/__main__.py", "compare", f"run={','.join(two)}", "resamples=50")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[:2] == ["A: a", "B: b"] and lines[2].strip() == "40 test faces, of 20 photographs"
    (row,) = [line.split() for line in lines if line.lstrip().startswith("age MAE, years")]
    assert row == ["age", "MAE,", "years", "5.00", "3.00", "-2.00", "-2.00", "to", "-2.00"]
    assert lines[-1].startswith("gender: only A is right on 9 faces") and all(len(line) <= 120 for line in lines)
    in_brackets = run_here("agegender/evaluation/compare/__main__.py", f"run=[{','.join(two)}]", "resamples=50")
    assert in_brackets == outcome


def test_comparison_refuses_other_test_faces_in_one_line(two: list[str], tmp_path: Path, run_here: Run) -> None:
    other = make_run(tmp_path / "c", faces(3, count=30)[10:], {"split_fingerprint": "other"})
    outcome = run_here("agegender/__main__.py", "compare", f"run={two[0]},{other}")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "error: the runs were tested on different faces (A: 40 of split abc123, B: 20 of split other): "
        "20 are common, common=true compares these\n"
    )


def test_comparison_of_common_faces_is_that_of_runs_on_these_faces(two: list[str], tmp_path: Path) -> None:
    few = make_run(tmp_path / "c", faces(3, range(12, 16), count=31)[11:], {"split_fingerprint": "other"})
    alone = make_run(tmp_path / "d", faces(5, range(3))[11:31])
    found = compare([two[0], str(few)], common=True, resamples=100)
    expected = compare([str(alone), str(few)], resamples=100)
    assert (found["metrics"], found["mcnemar"]) == (expected["metrics"], expected["mcnemar"])
    assert (found["images"], found["clusters"]) == (20, 11)  # two photographs have one of their copies among them
    (warning,) = found["warnings"]
    assert "only the faces that both were tested on are compared" in warning and "(A: abc123, B: other)" in warning
    assert "common=true" in found["command"]


def test_comparison_refuses_runs_without_a_common_face(two: list[str], tmp_path: Path) -> None:
    others = [replace(one, name=f"x{one.name}") for one in faces(3)]
    other = make_run(tmp_path / "c", others)
    with pytest.raises(AgeGenderError, match=r"different faces .*: none is common"):
        compare([two[0], str(other)])
    with pytest.raises(AgeGenderError, match="no face was tested by both runs"):
        compare([two[0], str(other)], common=True)


def test_comparison_refuses_other_labels_of_the_same_faces(two: list[str], tmp_path: Path) -> None:
    others = [replace(one, age=60) if i < 3 else one for i, one in enumerate(faces(3))]
    other = make_run(tmp_path / "c", others)
    with pytest.raises(AgeGenderError, match="3 faces have another age in the other run"):
        compare([two[0], str(other)])


@pytest.mark.parametrize("given", [None, "a", ["a"], ["a", "b", "c"], []])
def test_comparison_needs_two_runs(given: Any) -> None:
    with pytest.raises(AgeGenderError, match=r"compare is about two runs, not [013]: run=a,b"):
        compare(given)


def test_comparison_refuses_a_folder_as_its_file_and_names_one(two: list[str], tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"is a folder; give a file, such as .*comparison.json"):
        compare(two, out=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(AgeGenderError, match=r"can't be written \(.*\); give another file with out=..."):
        compare(two, out=str(tmp_path / "file/x.json"), resamples=20)


def test_comparison_refuses_runs_without_a_common_task(tmp_path: Path) -> None:
    smiling = [replace(one, more={"smile": i % 2, "p_smile": 0.7}) for i, one in enumerate(faces(3))]
    runs = [str(make_run(tmp_path / task.name, smiling, tasks=(task,))) for task in (AGE, SMILE)]
    with pytest.raises(AgeGenderError, match="the runs have no task in common"):
        compare(runs)


@pytest.mark.usefixtures("undrawn")
def test_comparison_without_classes_has_no_mcnemar_test(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, faces(error), tasks=(AGE,)) for name, error in (("a", 5), ("b", 3))]
    assert compare([str(run) for run in runs], resamples=20)["mcnemar"] == {}
    page = build_page(build_report(runs, {"resamples": 20, "faces": 0, "seed": 0}, ""))
    assert "Paired test" not in [section.title for section in page.sections]


@pytest.mark.usefixtures("undrawn")
def test_report_on_two_runs_holds_mcnemars_test(two: list[str]) -> None:
    report = build_report([Path(name) for name in two], {"resamples": 20, "faces": 0, "seed": 0}, "")
    (section,) = [section for section in build_page(report).sections if section.title == "Paired test"]
    (table,) = section.tables
    assert [list(row) for row in table.rows] == [["gender", "9", "2", "40", "0.0654"]]
    assert report_json(report)["mcnemar"]["gender"]["only_a"] == 9
    alone = build_report([Path(two[0])], report.settings, "")
    assert report_json(alone)["mcnemar"] is None


def test_faces_of_unknown_gender_are_not_tested(tmp_path: Path) -> None:
    made = [replace(one, gender="") if i < 10 else one for i, one in enumerate(faces(3, range(12)))]
    runs = [make_run(tmp_path / "a", made), make_run(tmp_path / "b", made)]
    assert compare([str(run) for run in runs], resamples=20)["mcnemar"]["gender"] == {
        "images": 30,
        "only_a": 0,
        "only_b": 0,
        "p": 1.0,
    }


def test_selected_predictions_keep_their_values_and_clusters(two: list[str]) -> None:
    run = read_run(Path(two[0])).predictions
    few = select(run, {"05.jpg", "06.jpg", "07.jpg", "missing.jpg"})
    assert few.names == ["05.jpg", "06.jpg", "07.jpg"] and few.clusters.tolist() == [0, 1, 1]
    assert few.labels["age"].tolist() == [25, 26, 27] and few.columns["age"].tolist() == [30, 31, 32]
    assert select(run, set(run.names)) is run


@pytest.mark.parametrize(
    ("metric", "difference", "sentence"),
    [
        ("mae", (-0.21, -0.3, -0.12), "B's age MAE is lower by 0.21 years (0.12 to 0.30)."),
        ("mae", (0.21, 0.12, 0.3), "B's age MAE is higher by 0.21 years (0.12 to 0.30)."),
        ("mae", (-0.1, -0.3, 0.1), "age MAE: no difference that these 4,659 faces can show (-0.30 to +0.10 years)."),
        ("mae", (-0.1, -0.3, 0.0), "age MAE: no difference that these 4,659 faces can show (-0.30 to +0.00 years)."),
        ("mae", (np.nan, np.nan, np.nan), "age MAE: undefined on these faces."),
        ("acc", (0.0041, 0.0002, 0.008), "B's gender accuracy is higher by 0.41 points (0.02 to 0.80)."),
        ("auroc", (-0.01, -0.02, -0.005), "B's gender AUROC is lower by 0.0100 (0.0050 to 0.0200)."),
        (
            "auroc",
            (0, -0.02, 0.02),
            "gender AUROC: no difference that these 4,659 faces can show (-0.0200 to +0.0200).",
        ),
    ],
)
def test_difference_sentence_follows_the_interval(metric: str, difference: tuple[float, ...], sentence: str) -> None:
    column = metric_column(AGE if metric == "mae" else GENDER, metric, interval=True)
    assert difference_sentence(column, Estimate(*difference), 4659) == sentence


@pytest.mark.parametrize(("p", "text"), [(1, "p = 1.00"), (0.0654, "p = 0.0654"), (1e-5, "p < 0.0001")])
def test_mcnemar_sentence_has_a_readable_p(p: float, text: str) -> None:
    assert mcnemar_sentence("gender", McNemar(9999, 1234, 5, p)) == (
        f"gender: only A is right on 1,234 faces, only B on 5; McNemar's exact test: {text}."
    )
