"""Gaps between groups, raw and age-standardized, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.made_runs import Made, make_run

from agegender.evaluation.fairness.measure import MetricFairness, measure_fairness
from agegender.evaluation.fairness.section import fairness_section
from agegender.evaluation.html.page import Section
from agegender.evaluation.report.comparison import build_report, report_json
from agegender.evaluation.report.run_reader import read_run

MEN, WOMEN = 0, 1
SETTINGS = {"resamples": 100, "faces": 0, "seed": 0}


def faces(gender: int, age: int, error: float, count: int, group: int = 0, right: int | None = None) -> list[Made]:
    """Predictions with this age error; the gender of the first `right` (by default of all) is correct."""
    right = count if right is None else right
    p_female = [abs((gender if i < right else 1 - gender) - 0.1) for i in range(count)]
    return [Made(f"{gender}_{age}_{group}_{i}.jpg", age, age + error, gender, p_female[i], group) for i in range(count)]


# Errors depend on the age only: 2 years at 25, 10 years at 65. The women are older.
OLDER_WOMEN = [*faces(MEN, 25, 2, 30), *faces(MEN, 65, 10, 20), *faces(WOMEN, 25, 2, 20), *faces(WOMEN, 65, 10, 60)]


def found(folder: Path, made: list[Made]) -> dict[tuple[str, str, str], MetricFairness]:
    gaps = measure_fairness(read_run(make_run(folder / "run", made)).predictions, resamples=100, seed=0)
    return {(each.label, each.task, each.metric): each for each in gaps}


def section_of(*runs: Path) -> Section:
    report = build_report(runs, SETTINGS, "")
    return fairness_section(report.fairness, report.tasks)


def test_gap_due_to_age_alone_vanishes_when_standardized(tmp_path: Path) -> None:
    mae = found(tmp_path, OLDER_WOMEN)["gender", "age", "mae"]
    # men: (30 * 2 + 20 * 10) / 50; women: (20 * 2 + 60 * 10) / 80
    assert mae.raw.values == pytest.approx({"male": 5.2, "female": 8.0})
    assert (mae.raw.worst, mae.raw.highest, mae.raw.lowest) == ("female", "female", "male")
    assert mae.raw.gap.value == pytest.approx(2.8) and mae.raw.gap.low > 0
    # of all 130 faces, 50 are 25 and 80 are 65 years old: (50 * 2 + 80 * 10) / 130
    assert mae.standardized is not None
    assert mae.standardized.values == pytest.approx({"male": 900 / 130, "female": 900 / 130})
    assert vars(mae.standardized.gap) == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-9)
    assert (mae.bands, mae.covered) == (("20-29", "60-69"), 1)


def test_gap_hidden_by_age_appears_when_standardized(tmp_path: Path) -> None:
    # At each age the women's error is larger; their ages favor them.
    made = [*faces(MEN, 25, 2, 20), *faces(MEN, 65, 8, 60), *faces(WOMEN, 25, 3, 60), *faces(WOMEN, 65, 9, 20)]
    mae = found(tmp_path, made)["gender", "age", "mae"]
    assert mae.raw.values == pytest.approx({"male": 6.5, "female": 4.5}) and mae.raw.worst == "male"
    assert mae.standardized is not None and mae.standardized.worst == "female"
    assert mae.standardized.values == pytest.approx({"male": 5, "female": 6})  # half of all faces are 25 years old


def test_worst_group_depends_on_the_metric(tmp_path: Path) -> None:
    made = [*faces(MEN, 25, -6, 40, right=30), *faces(WOMEN, 25, 2, 40, right=36)]
    gaps = found(tmp_path, made)
    worst = {metric: gaps["gender", task, metric].raw for task, metric in (("age", "bias"), ("gender", "acc"))}
    assert (worst["bias"].worst, worst["bias"].highest, worst["bias"].gap.value) == ("male", "female", 8)
    assert worst["acc"].worst == "male" and worst["acc"].gap.value == pytest.approx(0.15)
    assert gaps["gender", "age", "cs5"].raw.worst == "male"


def test_small_groups_are_left_out_and_bands_need_every_group(tmp_path: Path) -> None:
    made = [*faces(MEN, 25, 2, 30), *faces(MEN, 65, 2, 30), *faces(MEN, 25, 4, 25, group=1)]
    made += faces(MEN, 25, 90, 19, group=2)
    run = make_run(tmp_path / "run", made)
    mae = next(each for each in measure_fairness(read_run(run).predictions, 50, 0) if each.metric == "mae")
    assert (mae.label, mae.left_out) == ("group", ("Asian",)) and set(mae.raw.values) == {"White", "Black"}
    assert mae.bands == ("20-29",)
    assert mae.covered == pytest.approx(74 / 104)  # those left out are in the distribution too
    section = section_of(run)
    assert "Not compared by group, with fewer than 20 images: Asian." in section.text
    assert "every compared group: 20-29 (71.2 % of the images)." in section.text
    assert [table.caption for table in section.tables] == ["by group"]  # only one gender was tested


def test_groups_of_disjoint_ages_are_compared_raw_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [*faces(MEN, 25, 2, 30), *faces(WOMEN, 65, 4, 30)])
    mae = measure_fairness(read_run(run).predictions, 50, 0)[0]
    assert mae.raw.gap.value == 2 and mae.standardized is None and mae.covered == 0
    assert "No age band has 20 images of every gender: nothing is standardized." in section_of(run).text


def test_missing_labels_belong_to_no_group_and_no_band(tmp_path: Path) -> None:
    unknown = [Made(f"u{i}.jpg", "", 30, i % 2, 0.1) for i in range(30)]
    nobody = [Made(f"n{i}.jpg", 25, 99, "", 0.1) for i in range(30)]
    mae = found(tmp_path, [*OLDER_WOMEN, *unknown, *nobody])["gender", "age", "mae"]
    assert mae.raw.values == pytest.approx({"male": 5.2, "female": 8.0})


def test_section_without_two_groups_gives_the_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", faces(MEN, 25, 2, 30))
    assert measure_fairness(read_run(run).predictions, 50, 0) == []
    assert section_of(run) == Section("Fairness", "No label has two groups of at least 20 images.")


def test_section_has_a_raw_and_a_standardized_row_for_each_metric(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a", OLDER_WOMEN), make_run(tmp_path / "b", OLDER_WOMEN)
    section = section_of(first)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [
        *("age MAE, years", "age-standardized", "bias, years", "age-standardized", "CS@5, %", "age-standardized"),
        *("gender accuracy, %", "age-standardized"),
    ]
    assert table.rows[0][:5] == ("age MAE, years", "female", "female 8.00", "male 5.20", "2.80")
    assert table.rows[3][4:] == ("0.00", "0.00 to 0.00")
    assert section.text.startswith("Raw gaps mislead: the groups' ages differ")
    assert [table.caption for table in section_of(first, second).tables] == ["A by gender", "B by gender"]


def test_report_json_holds_the_gaps_of_each_run(tmp_path: Path) -> None:
    report = build_report([make_run(tmp_path / "run", OLDER_WOMEN)], SETTINGS, "")
    held = report_json(report)["runs"][0]["fairness"][0]
    assert (held["label"], held["task"], held["metric"], held["bands"]) == ("gender", "age", "mae", ["20-29", "60-69"])
    assert held["raw"]["values"] == pytest.approx({"male": 5.2, "female": 8.0})
    assert np.isclose(held["standardized"]["gap"]["value"], 0)
