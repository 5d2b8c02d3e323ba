"""Report page: the text of its sections for runs of known predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE, Made, make_run

from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.evaluation.html.page import Page, Section, Table
from agegender.evaluation.report import plots
from agegender.evaluation.report.comparison import build_report
from agegender.evaluation.report.page import build_page, headline_lines
from agegender.tasks.info import TaskInfo


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that drawing takes; what is drawn is another file's matter."""
    monkeypatch.setattr(plots, "to_png", lambda figure: b"")


SETTINGS = {"resamples": 200, "faces": 2, "seed": 0}


def answers(error: float = 4, count: int = 24) -> list[Made]:
    return [
        Made(f"{i}.jpg", 22 + i % 3, 22 + i % 3 + error, i % 2, 0.3 + 0.4 * (i % 2), 0, photograph=f"{i // 2}")
        for i in range(count)
    ]


def page_of(*folders: Path) -> Page:
    return build_page(build_report(folders, SETTINGS, "the command"))


def section(page: Page, title: str) -> Section:
    (found,) = [section for section in page.sections if section.title == title]
    return found


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    """The cells by row and column; columns of one name are numbered."""
    names = [f"{name} {table.header[:i].count(name) + 1}" for i, name in enumerate(table.header)]
    return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in table.rows}


def test_page_names_the_protocol_and_notes_its_leak(tmp_path: Path) -> None:
    leak = "191 of 3,287 test faces have a copy among the 13,143 training faces"
    known = {"protocol": "coral", "leak": leak, "leak/with_copy": 191}
    page = page_of(make_run(tmp_path / "run", answers(), known))
    assert dict(page.facts)["protocol"] == f"coral: {leak}"
    assert f"This run: {leak}. Its metrics are optimistic." in page.notes
    page = page_of(make_run(tmp_path / "older", answers()))
    assert "protocol" not in dict(page.facts) and not any("optimistic" in note for note in page.notes)


def test_page_sections_come_in_reading_order_with_the_runs_origin(tmp_path: Path) -> None:
    known = {"data": "data/UTKFace", "split": "content", "epochs": 7, "best_epoch": 5, "parameters": 12345}
    page = page_of(make_run(tmp_path / "run", answers(), known | {"overrides": "optim.lr=1", "hardware": "a CPU"}))
    assert [section.title for section in page.sections] == [
        *("Metrics", "Curves", "Age", "By age band", "By gender", "By group", "Gender"),
        *("Calibration of p_female", "Calibration of the age intervals", "Robustness"),
        *("Largest age errors", "Random faces"),
    ]
    assert page.title == "Test report of run"
    assert dict(page.facts) == {
        "run": str(tmp_path / "run"),
        "data": "data/UTKFace",
        "split": "content abc123",
        "test images": "24, of 12 photographs",
        "epochs": "7; epoch 5 selected by validation",
        "settings": "optim.lr=1",
        "gender least confidence": "0.500",
        "parameters": "12,345",
        "hardware": "a CPU",
        "made by": "the command",
    }


def test_page_shows_metrics_beside_intervals_and_baseline(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", answers(), {"baseline/age_mae": 15.008, "baseline/gender_acc": 0.5}))
    (table,) = section(page, "Metrics").tables
    rows = rows_of(table)
    assert rows["age MAE, years"] == {
        "test 1": "4.00",
        "95 % interval 1": "4.00 to 4.00",
        "constant prediction 1": "15.01",
    }
    assert rows["gender accuracy, %"]["test 1"] == "100.00"
    assert rows["gender accuracy, %"]["constant prediction 1"] == "50.00"
    assert rows["CS@5, %"]["test 1"] == "100.0" and rows["CS@5, %"]["constant prediction 1"] == ""
    assert rows["ECE of p_female"]["test 1"] == "0.300"
    assert "200 bootstrap resamples" in section(page, "Metrics").text
    assert "Copies of one photograph are drawn together." in section(page, "Metrics").text


def test_page_shows_answered_fraction_and_accuracy_with_min_confidence(tmp_path: Path) -> None:
    made = [replace(each, p_female=0.4 if i < 6 else each.p_female) for i, each in enumerate(answers())]
    page = page_of(make_run(tmp_path / "run", made, min_confidence=0.65))
    assert dict(page.facts)["gender least confidence"] == "0.650"
    (table,) = section(page, "Metrics").tables
    rows = rows_of(table)
    share, right = (rows[name] for name in ("gender answered (not unsure), %", "gender accuracy of answered, %"))
    low, _, high = share["95 % interval 1"].partition(" to ")
    assert share["test 1"] == "75.0" and float(low) < 75 < float(high)
    assert (right["test 1"], right["95 % interval 1"]) == ("100.00", "100.00 to 100.00")
    assert rows["gender accuracy, %"]["test 1"] == "87.50"


def test_page_without_an_index_notes_that_files_are_resampled(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", answers(), index=False))
    text = section(page, "Metrics").text
    assert "each file is drawn by itself" in text and "drawn together" not in text
    assert dict(page.facts)["test images"] == "24"
    assert "constant prediction" not in section(page, "Metrics").tables[0].header  # not known either


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"epochs": 0}, "This run was not trained (fit=false), so it has no curves."),
        ({"epochs": 3}, "This run has no curves: no logger wrote them, or their files were removed."),
    ],
)
def test_page_without_curves_gives_the_reason(tmp_path: Path, metrics: dict[str, Any], sentence: str) -> None:
    curves = section(page_of(make_run(tmp_path / "run", answers(), metrics)), "Curves")
    assert curves.text == sentence and not curves.plots


def test_page_shows_the_std_or_that_it_is_missing(tmp_path: Path) -> None:
    title = "Calibration of the age intervals"
    without = section(page_of(make_run(tmp_path / "without", answers())), title)
    assert without.text == "This run predicts no age intervals."
    assert not without.tables and not without.plots
    stated = [Made(f"{i}.jpg", age_pred=30 + i, age_std="2") for i in range(4)] + [Made("x.jpg")]
    told = section(page_of(make_run(tmp_path / "with", stated)), title)
    assert "75.0 % of the labels lie inside the 80 % intervals" in told.text  # 0, 1 and 2, not 3: 2.56
    assert "Only 4 of 5 images have a predicted standard deviation." in told.text
    assert "The predicted standard deviation is constant: 2.00 years, at an RMSE of 1.87." in told.text
    coverage, of_bands = told.tables
    assert of_bands.rows == [("30-39", "75.0", "24.4 to 100.0")]
    assert coverage.rows[0] == ("10 %", "25.0 %") and coverage.rows[8] == ("90 %", "100.0 %")
    assert [plot.name for plot in told.plots] == ["age_coverage"]
    varied = [Made(f"{i}.jpg", age_pred=30 + i, age_std=f"{i + 1}") for i in range(2)]
    told = section(page_of(make_run(tmp_path / "varied", varied)), title)
    assert told.tables[1].rows == [("1.00", "0.00", "1"), ("2.00", "1.00", "1")]
    assert "is constant" not in told.text
    assert [plot.name for plot in told.plots] == ["age_coverage", "age_spread"]


def test_page_warns_of_intervals_from_few_images(tmp_path: Path) -> None:
    made = [*answers(), Made("old.jpg", 80, 80, 1, 0.9)]
    page = page_of(make_run(tmp_path / "run", made))
    bands = section(page, "By age band")
    assert "Fewer than 20 images in 70+: these intervals are unreliable." in bands.text
    rows = rows_of(bands.tables[0])
    assert rows["70+"]["images 1"] == "1" and rows["70+"]["95 % interval 1"] == "0.00 to 0.00"
    assert rows["20-29"] == {
        "images 1": "24",
        "age MAE, years 1": "4.00",
        "95 % interval 1": "4.00 to 4.00",
        "bias, years 1": "+4.00",
        "CS@5, % 1": "100.0",
        "gender accuracy, % 1": "100.0",
        "95 % interval 2": "100.0 to 100.0",
    }
    assert "Fewer" not in section(page, "By group").text


def test_page_of_one_gender_has_no_roc_curve_and_says_so(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", [Made(f"{i}.jpg") for i in range(3)]))
    gender = section(page, "Gender")
    assert "This run has only one gender among its test images: no ROC, no AUROC." in gender.text
    assert [plot.name for plot in gender.plots] == ["gender_confusion"]
    row = rows_of(section(page, "Metrics").tables[0])["gender AUROC"]
    assert set(row.values()) == {"n/a"}


def test_page_notes_state_the_limits_of_the_metrics(tmp_path: Path) -> None:
    usual = " ".join(page_of(make_run(tmp_path / "usual", answers(), {"data": "data/UTKFace"})).notes)
    assert "non-commercial research" in usual and "assigned by others" in usual and "do not publish" in usual
    assert "without the test images" in usual and "synthetic" not in usual
    drawn = " ".join(page_of(make_run(tmp_path / "drawn", answers(), {"data": SYNTHETIC_NOTE})).notes)
    assert "nothing here applies to real people" in drawn
    random = " ".join(page_of(make_run(tmp_path / "random", answers(), {"split": "random"})).notes)
    assert "the epoch was selected on its test images" in random and "without the test images" not in random


def test_page_shows_two_runs_side_by_side_with_their_difference(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first", answers(4)), make_run(tmp_path / "second", answers(3.999))
    page = page_of(first, second)
    assert page.title == "Test report of first and second"
    assert dict(page.facts) == {"A": str(first), "B": str(second), "made by": "the command"}
    row = rows_of(section(page, "Metrics").tables[0])["age MAE, years"]
    assert (row["A 1"], row["B 1"], row["B minus A 1"]) == ("4.00", "4.00", "+0.00")  # no minus before nothing
    assert [table.caption for table in section(page, "By age band").tables] == ["A", "B"]
    assert section(page, "Runs").text == ""
    assert {"Largest age errors (A)", "Largest age errors (B)"} <= {section.title for section in page.sections}
    assert section(page, "Calibration of the age intervals").text == (
        "Run A predicts no age intervals. Run B predicts no age intervals."
    )


def test_page_shows_what_only_one_run_has(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", [Made(f"{i}.jpg") for i in range(4)])
    second = make_run(tmp_path / "b", [Made(f"{i}.jpg", gender=i % 2, age_std="3") for i in range(4)])
    page = page_of(first, second)
    assert section(page, "Gender").text.startswith("Run A has only one gender")
    assert [plot.name for plot in section(page, "Gender").plots] == [
        *("gender_roc", "gender_confusion_a", "gender_confusion_b")
    ]
    spread = section(page, "Calibration of the age intervals")
    assert spread.text.startswith("Run A predicts no age intervals. Run B: 100.0 % of the labels lie")
    assert [plot.name for plot in spread.plots] == ["age_coverage"]


def test_page_warns_of_incomparable_runs_at_the_top(tmp_path: Path) -> None:
    other = make_run(tmp_path / "b", answers(count=10), {"split_fingerprint": "other"})
    report = build_report([make_run(tmp_path / "a", answers()), other], SETTINGS, "")
    page = build_page(report)
    assert page.sections[0].title == "Runs"
    assert "can't be compared" in page.sections[0].text and "no difference is given" in page.sections[0].text
    assert "B minus A" not in section(page, "Metrics").tables[0].header
    assert headline_lines(report)[0] == "age MAE, years: A 4.00 (4.00 to 4.00), B 4.00 (4.00 to 4.00)"


def test_page_counts_missing_labels(tmp_path: Path) -> None:
    made = [replace(one, age="" if i % 3 else one.age, gender="" if i % 4 else 1) for i, one in enumerate(answers())]
    made = [replace(one, group=i % 2) for i, one in enumerate(made)]
    classes = {"gender": ["male", "female"], "group": ["n $ n", "south"]}
    run = make_run(tmp_path / "run", made, {"classes": classes, "table": "labels.csv"})
    page = page_of(run)
    assert dict(page.facts)["test images"] == "24, of 12 photographs; age known for 8, gender known for 6"
    assert dict(page.facts)["table"] == "labels.csv"
    by_group = rows_of(section(page, "By group").tables[0])
    columns = ("images 1", "with age 1", "with gender 1")
    counts = {name: [row[column] for column in columns] for name, row in by_group.items()}
    assert counts == {"n $ n": ["12", "4", "6"], "south": ["12", "4", "0"]}
    assert by_group["south"]["gender accuracy, % 1"] == "n/a"
    cards = [card.lines[0] for row in section(page, "Random faces").faces for card in row]
    assert cards and all(line.startswith("true ") for line in cards)
    assert not any("nan" in line for line in cards)


@pytest.mark.parametrize("lacking", ["age", "gender", "group"])
def test_page_of_a_run_without_a_label_kind_says_so(tmp_path: Path, lacking: str) -> None:
    none: dict[str, Any] = {lacking: ""}
    made = [replace(one, **none, age_std="4.0") for one in answers()]
    page = page_of(make_run(tmp_path / "run", made))
    titles = [section.title for section in page.sections]
    assert f"By {'age band' if lacking == 'age' else lacking}" not in titles
    said = "This run was tested on images without any"
    if lacking != "group":
        title = lacking.capitalize()
        assert section(page, title).text == f"{said} {lacking}." and not section(page, title).plots
        assert not any(row[0].startswith(lacking) for row in section(page, "Metrics").tables[0].rows)
        assert not any(lacking in name.split() for name in section(page, "By group").tables[0].header)
    assert ("Calibration of the age intervals" in titles) == (lacking != "age")
    assert ("Calibration of p_female" in titles) == (lacking != "gender")
    both = page_of(make_run(tmp_path / "a", made), make_run(tmp_path / "b", answers()))
    assert f"Run A was tested on images without any {lacking}." in " ".join(part.text for part in both.sections) or (
        lacking == "group"
    )


def further(count: int = 24) -> list[Made]:
    """Predictions of three further tasks; a third of the labels are missing."""
    found = []
    for i, made in enumerate(answers(count=count)):
        probabilities: dict[str, float | str] = dict.fromkeys(ETHNICITY.columns, 0.1)
        probabilities[ETHNICITY.columns[i % 5]] = 0.6
        more: dict[str, float | str] = {
            "height": 160 + i,
            "height_pred": 163 + i,
            "height_std": 4,
            "height_low": 150,
            "height_high": 200,
        }
        more |= {"smile": "" if i % 3 == 0 else i % 2, "p_smile": 0.2 + 0.6 * (i % 2)}
        found.append(replace(made, group=i % 4, more=more | probabilities))
    return found


def test_page_of_further_tasks_has_their_metrics_subgroups_and_calibration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", further(), {"test/height_cs2": 0.0}, tasks=(HEIGHT, SMILE, ETHNICITY))
    page = page_of(run)
    assert [section.title for section in page.sections] == [
        *("Metrics", "Curves", "Height", "By smile", "By group", "By age band", "By gender"),
        *("Smile", "Calibration of p_smile", "Ethnicity", "Calibration of ethnicity confidence"),
        *("Calibration of the height intervals", "Robustness", "Largest height errors"),
        *("Most confident ethnicity errors", "Random faces"),
    ]
    rows = rows_of(section(page, "Metrics").tables[0])
    assert {name: row["test 1"] for name, row in rows.items()} == {
        "height MAE, cm": "3.00",
        "CS@2, %": "0.0",
        "CS@2 of predictions in whole cm, %": "0.0",
        "smile accuracy, %": "100.00",
        "smile answered (not unsure), %": "100.0",
        "smile accuracy of answered, %": "100.00",
        "smile AUROC": "1.0000",
        "ECE of p_smile": "0.200",
        "ethnicity accuracy, %": "33.33",  # i % 4 == i % 5 for 8 of 24
        "ethnicity answered (not unsure), %": "100.0",
        "ethnicity accuracy of answered, %": "33.33",
        "ECE of ethnicity confidence": "0.267",
    }
    white = rows_of(section(page, "By group").tables[0])["White"]
    assert [white[name] for name in ("images 1", "with height 1", "with smile 1", "with ethnicity 1")] == [
        *("6", "6", "4", "6")
    ]
    assert [white[name] for name in ("height MAE, cm 1", "bias, cm 1", "smile accuracy, % 1")] == [
        "3.00",
        "+3.00",
        "100.0",
    ]
    (reliability,) = section(page, "Calibration of ethnicity confidence").tables
    assert reliability.header[-1] == "fraction correct" and reliability.rows[6][1:] == ("24", "0.600", "0.333")
    names = [plot.name for part in page.sections for plot in part.plots]
    assert len(names) == len(set(names))
    assert {"height_true_vs_predicted", "height_cumulative_score", "smile_roc", "ethnicity_confusion"} <= set(names)
    assert {"ethnicity_acc_by_group", "height_mae_by_age", "smile_acc_by_gender"} <= set(names)
    spread = section(page, "Calibration of the height intervals")
    assert "100.0 % of the labels lie" in spread.text and "is constant: 4.00 cm, at an RMSE of 3.00." in spread.text
    assert [table.header[0] for table in spread.tables] == ["nominal", "age band"]


@pytest.mark.parametrize(("tasks", "titles"), [((AGE,), ["Age"]), ((GENDER,), ["Gender"])])
def test_page_of_one_task_is_about_that_task(tmp_path: Path, tasks: Sequence[TaskInfo], titles: list[str]) -> None:
    page = page_of(make_run(tmp_path / "run", answers(), tasks=tasks))
    found = [section.title for section in page.sections]
    assert [title for title in found if title in ("Age", "Gender")] == titles
    assert ("By age band" in found) and ("By gender" in found)  # labels of the index, predicted or not
    name = tasks[0].name
    other = {"age": "gender", "gender": "MAE"}[name]
    assert not any(other in row[0] for row in section(page, "Metrics").tables[0].rows)


@pytest.mark.parametrize("label", ["height", "smile", "group"])
def test_page_of_a_further_label_that_nobody_has_says_so(tmp_path: Path, label: str) -> None:
    none: dict[str, Any] = {"group": ""} if label == "group" else {}
    made = [replace(one, **none, more={**one.more, label: ""}) for one in further()]
    page = page_of(make_run(tmp_path / "run", made, tasks=(AGE, HEIGHT, SMILE, ETHNICITY)))
    title = "Ethnicity" if label == "group" else label.capitalize()
    assert section(page, title).text == f"This run was tested on images without any {label}."
    assert not section(page, title).plots and not [
        plot.name for part in page.sections for plot in part.plots if title.lower() in plot.name
    ]
    cells = [cell for part in page.sections for table in part.tables for row in table.rows for cell in row]
    assert "nan" not in " ".join(cells)


def test_page_names_the_baseline_of_a_run_without_training_images(tmp_path: Path) -> None:
    known = {"baseline/age_mae": 10.0, "baseline/from": "the test images themselves"}
    (table,) = section(page_of(make_run(tmp_path / "run", answers(), known)), "Metrics").tables
    assert table.header[-1] == "best constant prediction"
