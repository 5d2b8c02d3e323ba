"""Decisions by a run's predictions: age limits, P(age >= T), and selective prediction, against hand computation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from helpers.made_runs import AGE, GENDER, HEIGHT, Made, make_run

from agegender.errors import AgeGenderError
from agegender.evaluation.decisions import plots
from agegender.evaluation.decisions.decisions import Decisions, decide
from agegender.evaluation.decisions.page import WARNING
from agegender.evaluation.html.page import Page, Section
from agegender.evaluation.html.plot_style import to_png
from agegender.evaluation.report import plots as report_plots
from agegender.evaluation.report.comparison import build_report, report_json
from agegender.evaluation.report.page import build_page
from agegender.evaluation.report.run_reader import read_run
from agegender.tasks.info import TaskInfo


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time that drawing takes."""
    monkeypatch.setattr(plots, "to_png", lambda figure: b"")
    monkeypatch.setattr(report_plots, "to_png", lambda figure: b"")


# true age, predicted age, gender, group
_FACES = [(10, 12.0, 0, 0), (12, 19.0, 0, 0), (14, 17.0, 0, 1), (17, 18.0, 1, 0), (17, 26.0, 1, 1)]
_FACES += [(18, 17.9, 0, 0), (20, 24.0, 0, 1), (30, 40.0, 1, 0)]
LIMIT = 18


def made(faces: Sequence[tuple[int, float, int, int]] = _FACES, **others: Any) -> list[Made]:
    return [
        Made(f"{i}.jpg", age, predicted, gender, 0.1 + 0.1 * i, group, **others)
        for i, (age, predicted, gender, group) in enumerate(faces)
    ]


def decided(folder: Path, faces: Sequence[Made], thresholds: Sequence[int] = (LIMIT,), **run: Any) -> Decisions:
    return decide(read_run(make_run(folder / "run", faces, **run)).predictions, thresholds, 200, 0)


def report_of(folder: Path, faces: Sequence[Made], thresholds: Sequence[int], **run: Any) -> tuple[Page, Any]:
    settings = {"resamples": 50, "faces": 1, "seed": 0}
    report = build_report([make_run(folder / "run", faces, **run)], settings, "the command", thresholds)
    return build_page(report), json.loads(json.dumps(report_json(report), allow_nan=False))


def section(page: Page, title: str) -> Section:
    (found,) = [section for section in page.sections if section.title == title]
    return found


# Age limits


def test_limit_rates_match_hand_computation(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, made()).limits
    assert vars(limit.faces) == {"under": 5, "near": 3, "over": 3}  # 14, 17 and 17 years are near
    rates = limit.challenges[LIMIT]
    assert rates.passed.value == pytest.approx(3 / 5)  # predicted 19, 18 and 26
    assert rates.passed_near.value == pytest.approx(2 / 3)
    assert rates.refused.value == pytest.approx(1 / 3)  # predicted 17.9
    assert rates.passed.low <= rates.passed.value <= rates.passed.high


def test_limit_at_a_challenge_age_passes_fewer_and_refuses_more(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, made()).limits
    rates = limit.challenges[25]
    assert [each.value for each in (rates.passed, rates.passed_near, rates.refused)] == pytest.approx(
        [1 / 5, 1 / 3, 2 / 3]
    )
    assert list(limit.challenges) == list(range(18, 34))
    passed = [each.passed.value for each in limit.challenges.values()]
    refused = [each.refused.value for each in limit.challenges.values()]
    assert passed == sorted(passed, reverse=True) and refused == sorted(refused)


def test_limit_by_true_age_counts_the_faces_of_each_year(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, made()).limits
    found = {each.age: (each.faces, each.passed.value) for each in limit.ages}
    assert found == {10: (1, 0), 12: (1, 1), 14: (1, 0), 17: (2, 1), 18: (1, 0), 20: (1, 1)}


def test_limit_by_subgroup_matches_hand_computation(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, made()).limits
    found = {
        (label, part.name): (part.faces.under, part.rates.passed.value, part.rates.refused.value)
        for label, parts in limit.subgroups.items()
        for part in parts
    }
    assert found == {
        ("gender", "male"): (3, pytest.approx(1 / 3), pytest.approx(1 / 2)),
        ("gender", "female"): (2, 1, 0),
        ("group", "White"): (3, pytest.approx(2 / 3), pytest.approx(1 / 2)),
        ("group", "Black"): (2, 1 / 2, 0),
    }


def test_limit_intervals_draw_copies_of_a_photograph_together(tmp_path: Path) -> None:
    faces = [Made(f"{i}.jpg", 17, 15.0 + 10 * (i % 2), photograph=f"{i % 2}") for i in range(20)]
    faces += [Made("old.jpg", 40, 40.0)]
    (limit,) = decided(tmp_path, faces).limits
    passed = limit.challenges[LIMIT].passed
    # only two photographs under the limit: all, half or none pass
    assert (passed.value, passed.low, passed.high) == (0.5, 0, 1)


def test_limit_without_faces_on_both_sides_is_skipped_with_a_sentence(tmp_path: Path) -> None:
    page, numbers = report_of(tmp_path, made(), [LIMIT, 31, 10])
    (run,) = numbers["runs"]
    assert [limit["limit"] for limit in run["thresholds"]] == [LIMIT] and run["thresholds_skipped"] == [10, 31]
    assert "Without test faces on both sides of 10, 31 years: not measured." in section(page, "Age thresholds").text
    page, _ = report_of(tmp_path / "none", made(), [50])
    assert section(page, "Age thresholds").text == "Without test faces on both sides of 50 years: not measured."


def test_limit_ignores_faces_of_unknown_age(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, [*made(), Made("unknown.jpg", "", 60.0)]).limits
    assert vars(limit.faces) == {"under": 5, "near": 3, "over": 3}
    assert limit.challenges[LIMIT].passed.value == pytest.approx(3 / 5)


def test_limits_of_a_run_without_ages_in_years_are_absent(tmp_path: Path) -> None:
    for name, task in (("months", replace(AGE, unit="months")), ("height", HEIGHT)):
        faces = [replace(one, more={"height": 170, "height_pred": 171}) for one in made()]
        page, numbers = report_of(tmp_path / name, faces, [LIMIT], tasks=(task, GENDER))
        assert "Age thresholds" not in [section.title for section in page.sections]
        assert numbers["runs"][0]["thresholds"] == []
    page, _ = report_of(tmp_path / "off", made(), [])
    assert "Age thresholds" not in [section.title for section in page.sections]


def test_limits_out_of_range_are_errors(tmp_path: Path) -> None:
    for given in ([0], [18, 18], [500]):
        with pytest.raises(AgeGenderError, match=r"thresholds=\["):
            report_of(tmp_path / str(given), made(), given)


# P(age >= T)


def test_probability_of_a_limit_is_normal_without_its_column(tmp_path: Path) -> None:
    # P(age >= 18) of 20 with a deviation of 5: 0.69; two of four such faces are old enough
    faces = [Made(f"{i}.jpg", 17 + i % 2, 20.0, age_std="5") for i in range(4)]
    (limit,) = decided(tmp_path, faces).limits
    probability = 1 - NormalDist(20, 5).cdf(17.5)
    assert limit.probability == "normal" and limit.ece is not None and limit.reliability is not None
    assert limit.ece.value == pytest.approx(probability - 0.5)
    assert limit.reliability.images.tolist() == [0] * 6 + [4] + [0] * 3


def test_probability_of_a_limit_is_that_of_its_column(tmp_path: Path) -> None:
    task = replace(AGE, columns=(*AGE.columns, "p_age_from_18"), digits=(*AGE.digits, 4))
    probabilities = [0.2, 0.2, 0.9, 0.9]  # of ages 17, 18, 17, 18
    faces = [
        Made(f"{i}.jpg", 17 + i % 2, 20.0, age_std="5", more={"p_age_from_18": each})
        for i, each in enumerate(probabilities)
    ]
    (limit,) = decided(tmp_path, faces, tasks=(task, GENDER)).limits
    assert limit.probability == "predicted" and limit.ece is not None
    assert limit.ece.value == pytest.approx((abs(0.2 - 0.5) + abs(0.9 - 0.5)) / 2)
    page, _ = report_of(tmp_path / "page", faces, [LIMIT], tasks=(task, GENDER))
    (table,) = section(page, "Calibration of P(age >= T)").tables
    assert table.rows[0][:3] == ("18", "predictions.csv", "0.3500")


def test_probability_columns_of_one_of_two_runs_do_not_hinder_their_comparison(tmp_path: Path) -> None:
    task = replace(AGE, columns=(*AGE.columns, "p_age_from_18"), digits=(*AGE.digits, 4))
    faces = made(age_std="5", more={"p_age_from_18": 0.5})
    folders = [make_run(tmp_path / "a", faces, tasks=(task, GENDER)), make_run(tmp_path / "b", faces)]
    report = build_report(folders, {"resamples": 5, "faces": 0, "seed": 0}, "the command", [LIMIT])
    assert report.difference is not None and set(report.difference) >= {"age_mae", "gender_acc"}
    sources = [found.limits[0].probability for found in report.decisions.values()]
    assert sources == ["predicted", "normal"]
    assert len(section(build_page(report), "Calibration of P(age >= T)").tables) == 2


def test_probability_without_a_deviation_is_absent(tmp_path: Path) -> None:
    (limit,) = decided(tmp_path, made()).limits
    assert (limit.probability, limit.ece, limit.reliability) == (None, None, None)
    page, _ = report_of(tmp_path / "page", made(), [LIMIT])
    assert "Calibration of P(age >= T)" not in [section.title for section in page.sections]


def test_probability_outside_0_to_1_is_a_damaged_file(tmp_path: Path) -> None:
    task = replace(AGE, columns=(*AGE.columns, "p_age_from_18"), digits=(*AGE.digits, 4))
    faces = [Made("0.jpg", 17, 20.0, more={"p_age_from_18": 1.5})]
    with pytest.raises(AgeGenderError, match=r"p_age_from_18 can't be 1\.5"):
        decided(tmp_path, faces, tasks=(task,))


def test_description_of_a_number_with_thresholds_is_read_back() -> None:
    task = replace(AGE, columns=(*AGE.columns, "p_age_from_18"), digits=(*AGE.digits, 4))
    assert TaskInfo.from_dict(json.loads(json.dumps(task.to_dict()))) == task


# Selective prediction


def test_selective_age_orders_by_the_width_of_the_interval(tmp_path: Path) -> None:
    widths, errors = [8, 2, 4, 4], [6, 1, 2, 4]
    faces = [
        Made(f"{i}.jpg", 40, 40.0 + error, interval=(40 - width / 2, 40 + width / 2))
        for i, (width, error) in enumerate(zip(widths, errors, strict=True))
    ]
    found = decided(tmp_path, faces).selective["age"]
    # 1; then 2 or 4 in random order; then both; then 6
    risks = [1, (1 + 3) / 2, 7 / 3, 13 / 4]
    assert found.aurc.value == pytest.approx(sum(risks) / 4)
    by_coverage = dict(zip(found.coverage, found.risk, strict=True))
    assert by_coverage[1.0].value == pytest.approx(13 / 4) and by_coverage[0.5].value == pytest.approx(2)
    assert dict(zip(found.coverage, found.limit, strict=True)) == {1.0: 8, 0.95: 8, 0.9: 8, 0.8: 8, 0.7: 4, 0.5: 4}
    assert found.curve[[24, 49, 74, 99]].tolist() == pytest.approx(risks)


def test_selective_age_without_intervals_orders_by_the_deviation(tmp_path: Path) -> None:
    faces = [Made(f"{i}.jpg", 40, 41.0 + i, age_std=str(3 - i)) for i in range(3)]
    found = decided(tmp_path, faces).selective["age"]
    assert found.aurc.value == pytest.approx((3 + 5 / 2 + 2) / 3)
    assert found.limit[0] == pytest.approx(2 * 3 * NormalDist().inv_cdf(0.9))


def test_selective_gender_orders_by_the_probability_of_the_class(tmp_path: Path) -> None:
    # male by 0.9 (right), female by 0.8 (wrong), male by 0.6 (right)
    faces = [Made("a.jpg", gender=0, p_female=0.1), Made("b.jpg", gender=0, p_female=0.8)]
    faces += [Made("c.jpg", gender=0, p_female=0.4)]
    found = decided(tmp_path, faces).selective["gender"]
    assert found.aurc.value == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert found.limit[0] == pytest.approx(0.6) and found.images == 3


def test_selective_leaves_out_tasks_without_an_uncertainty_or_a_label(tmp_path: Path) -> None:
    faces = [Made(f"{i}.jpg", 40, 41.0, gender="") for i in range(3)]
    assert decided(tmp_path, faces).selective == {}


# The page


def test_page_of_thresholds_has_its_warning_and_the_rates_with_intervals(tmp_path: Path) -> None:
    page, numbers = report_of(tmp_path, made(age_std="5"), [LIMIT])
    found = section(page, "Age thresholds")
    assert found.text.startswith(WARNING)
    rates, groups, near = found.tables
    assert [row[:4] for row in rates.rows] == [("18", "18", "5", "60.0"), ("18", "25", "5", "20.0")]
    assert [row[0] for row in groups.rows] == ["gender: male", "gender: female", "group: White", "group: Black"]
    assert groups.rows[0][1].startswith("33.3 (") and groups.rows[0][1].endswith("; 3)")
    assert near.header[1] == "13 to 17" and near.rows[0][1].endswith("; 1)")
    (run,) = numbers["runs"]
    assert numbers["thresholds"] == [LIMIT]
    assert run["thresholds"][0]["challenges"]["25"]["passed"]["value"] == pytest.approx(0.2)
    assert set(run["selective"]) == {"age", "gender"} and len(run["selective"]["age"]["curve"]) == 100


def test_page_of_two_runs_draws_the_decisions_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "to_png", to_png)
    folders = [make_run(tmp_path / name, made(age_std="5")) for name in ("a", "b")]
    report = build_report(folders, {"resamples": 5, "faces": 0, "seed": 0}, "the command", [13, LIMIT])
    drawn = {plot.name: plot.png for section in build_page(report).sections for plot in section.plots}
    names = {f"age_{kind}_{run}" for kind in ("thresholds", "challenges", "threshold_reliability") for run in "ab"}
    assert {*names, "age_risk_coverage", "gender_risk_coverage"} <= set(drawn)
    assert all(drawn[name].startswith(b"\x89PNG") for name in names)
