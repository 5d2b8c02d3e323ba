"""The values of each image behind the metrics of each kind of task, against cases computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.evaluation.statistics.task_values import calibration_pair, is_subgroup_metric, likeliest, task_values
from agegender.tasks.info import TaskInfo

NAN = float("nan")


def floats(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def metrics_of(
    task: TaskInfo,
    labels: dict[str, NDArray[np.float64]],
    columns: dict[str, NDArray[np.float64]],
    tolerance: float | None = None,
) -> dict[str, float]:
    """The mean of the images that count, by metric; NaN where none does."""
    found = task_values(task, labels, columns, tolerance)
    return {name: float(values[within].mean()) if within.any() else NAN for name, (values, within) in found.items()}


def number(name: str, value: NDArray[np.float64], **others: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    empty = dict.fromkeys((f"{name}_std", f"{name}_low", f"{name}_high"), np.full(len(value), NAN))
    return {name: value, **empty, **{f"{name}_{key}": column for key, column in others.items()}}


def test_number_metrics_match_hand_computation() -> None:
    labels = {"age": floats(30, 30, 30, NAN)}
    # errors 5.4, 4.0, -6.0; of whole years 5, 4, -6
    found = metrics_of(AGE, labels, number("age", floats(35.4, 34, 24, 99)), 5)
    expected = {"mae": 15.4 / 3, "bias": 3.4 / 3, "cs5": 1 / 3, "cs5_whole": 2 / 3, "coverage": NAN}
    assert found == pytest.approx(expected, nan_ok=True)


def test_number_without_a_tolerance_has_no_cumulative_score() -> None:
    labels, columns = {"height": floats(170, 180)}, number("height", floats(172, 177))
    assert set(metrics_of(HEIGHT, labels, columns)) == {"mae", "bias", "coverage"}
    found = metrics_of(HEIGHT, labels, columns, 2.5)
    assert found["cs2.5"] == 0.5 and "cs2.5_whole" not in found  # rounding says nothing about a fraction


def test_coverage_counts_intervals_and_normal_ones_where_only_a_std_is_predicted() -> None:
    labels = {"age": floats(30, 30, 75, 75, 5, NAN)}
    columns = number(
        "age",
        floats(30, 30, 75, 78, 5, 5),
        std=floats(1, 99, 1, 2, NAN, 1),
        low=floats(30, 31, 50, NAN, NAN, 1),
        high=floats(40, 40, 74, NAN, NAN, 9),
    )
    values, within = task_values(AGE, labels, columns)["coverage"]
    # at an end is inside; 31 is above, whatever the std says; 74 is below; 3 years are 1.5 standard deviations
    assert within.tolist() == [True, True, True, True, False, False]
    assert values[within].tolist() == [1, 0, 0, 0]


def test_class_metrics_match_hand_computation() -> None:
    labels = {"smile": floats(1, 0, 0, NAN), "age": floats(3, 40, 50, 60)}
    found = metrics_of(replace(SMILE, min_confidence=0.7), labels, {"p_smile": floats(0.9, 0.6, 0.25, 0.8)})
    # right, wrong but unsure, right
    assert found == pytest.approx({"acc": 2 / 3, "answered": 2 / 3, "acc_answered": 1})


def test_gender_accuracy_of_older_faces_needs_a_known_age_from_five_on() -> None:
    labels = {"gender": floats(1, 0, 0, 1), "age": floats(4.9, 5, NAN, 60)}
    columns = {"p_female": floats(0.9, 0.6, 0.1, 0.7)}
    found = metrics_of(GENDER, labels, columns)
    assert found["acc"] == 0.75 and found["acc_from_5"] == 0.5
    assert list(found) == ["acc", "acc_from_5", "answered", "acc_answered"]
    del labels["age"]
    assert "acc_from_5" not in metrics_of(GENDER, labels, columns)


def test_metrics_of_several_classes_match_hand_computation() -> None:
    labels = {"group": floats(0, 1, 2, 4, NAN)}
    rows = [[0.5, 0.2, 0.1, 0.1, 0.1], [0.4, 0.3, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]]
    columns = dict(zip(ETHNICITY.columns, np.array([*rows, rows[0]]).T, strict=True))
    predicted, confidence = likeliest(ETHNICITY, columns)
    assert predicted.tolist() == [0, 0, 2, 0, 0] and confidence.tolist() == [0.5, 0.4, 0.6, 0.2, 0.5]  # first of equal
    found = metrics_of(replace(ETHNICITY, min_confidence=0.45), labels, columns)
    assert found == pytest.approx({"acc": 0.5, "answered": 0.5, "acc_answered": 1})
    probability, outcome = calibration_pair(ETHNICITY, labels, columns)
    assert probability.tolist() == confidence.tolist() and outcome.tolist() == [1, 0, 1, 0, 0]


def test_calibration_of_two_classes_is_that_of_the_second() -> None:
    labels, columns = {"smile": floats(1, 0)}, {"p_smile": floats(0.9, 0.2)}
    probability, outcome = calibration_pair(SMILE, labels, columns)
    assert probability.tolist() == [0.9, 0.2] and outcome.tolist() == [1, 0]


@given(st.floats(0, 1), st.sampled_from((GENDER, SMILE)))
def test_likeliest_class_is_that_of_a_prediction(probability: float, task: TaskInfo) -> None:
    (predicted,), (confidence,) = likeliest(task, {task.columns[0]: floats(probability)})
    assert task.classes[predicted] == task.predicted_class({task.columns[0]: probability}, 0.0)
    assert confidence == max(probability, 1 - probability)


def test_metrics_of_a_label_that_nobody_has_count_no_image() -> None:
    labels = {"smile": floats(NAN, NAN), "age": floats(NAN, NAN)}
    assert np.isnan(list(metrics_of(SMILE, labels, {"p_smile": floats(0.1, 0.9)}).values())).all()
    assert np.isnan(list(metrics_of(AGE, labels, number("age", floats(1, 2), std=floats(1, 1)), 5).values())).all()


def test_subgroups_have_the_plain_metrics_only() -> None:
    names = ("mae", "bias", "cs5", "cs5_whole", "coverage", "acc", "acc_from_5", "answered", "acc_answered", "ece")
    assert [name for name in names if is_subgroup_metric(name)] == ["mae", "bias", "cs5", "coverage", "acc"]
