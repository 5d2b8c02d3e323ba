"""Metrics from predictions, against cases computed by hand and against torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc

from agegender.evaluation.statistics.metrics import (
    AGE_BANDS,
    age_bands,
    confusion,
    cumulative_score,
    roc,
    safe_divide,
    weighted_auroc,
    weighted_means,
)


def floats(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def once(values: NDArray[Any]) -> NDArray[np.float64]:
    """Each image counts once."""
    return np.ones((1, len(values)))


# score and class of some images; few levels, so that there are ties
ANSWERS = st.lists(
    st.tuples(st.integers(0, 8).map(lambda level: level / 8), st.integers(0, 1)), min_size=1, max_size=40
)


def split(answers: list[tuple[float, int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return floats(*(p for p, _ in answers)), integers(*(positive for _, positive in answers))


def test_age_bands_hold_every_age_once_as_named() -> None:
    for age, place in enumerate(age_bands(np.arange(121))):
        low, _, high = AGE_BANDS[place].removesuffix("+").partition("-")
        assert int(low) <= age <= int(high or 1000)


def test_age_bands_are_the_specified_ones() -> None:
    assert AGE_BANDS == ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")


def test_weighted_mean_counts_each_image_by_its_weight_per_column() -> None:
    weights = np.array([[1.0, 1, 1], [0, 2, 1], [0, 0, 3]])
    values = np.array([[1.0, 10], [2, 20], [6, 60]])
    within = np.array([[True, True], [True, True], [True, False]])
    means = weighted_means(weights, values, within)
    assert means[:, 0].tolist() == [3, 10 / 3, 6]
    assert means[:2, 1].tolist() == [15, 20] and np.isnan(means[2, 1])  # nobody is left to count


def test_division_by_zero_is_nan_without_a_warning() -> None:
    assert (
        safe_divide(floats(1, 6), floats(0, 3)).tolist()[1:] == [2] and np.isnan(safe_divide(floats(1), floats(0)))[0]
    )


def test_auroc_is_the_fraction_of_ordered_pairs_with_ties_as_half() -> None:
    score, positive = floats(0.1, 0.4, 0.4, 0.8), integers(0, 0, 1, 1)
    assert weighted_auroc(once(positive), score, positive).tolist() == [3.5 / 4]
    assert weighted_auroc(np.array([[1.0, 3, 1, 0]]), score, positive).tolist() == [(1 + 3 * 0.5) / 4]


@given(ANSWERS)
def test_auroc_equals_torchmetrics_and_is_nan_for_one_class(
    answers: list[tuple[float, int]],
) -> None:
    score, positive = split(answers)
    (ours,) = weighted_auroc(once(positive), score, positive)
    if 0 < positive.sum() < len(positive):
        theirs = binary_auroc(torch.tensor(score), torch.tensor(positive)).item()
        assert ours == pytest.approx(theirs, abs=1e-6)
    else:
        assert np.isnan(ours)


@given(ANSWERS, st.data())
def test_auroc_with_integer_weights_equals_repeated_images(answers: list[tuple[float, int]], data: Any) -> None:
    score, positive = split(answers)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(positive), max_size=len(positive))))
    (ours,) = weighted_auroc(times[None].astype(float), score, positive)
    repeated = np.repeat(score, times), np.repeat(positive, times)
    (theirs,) = weighted_auroc(np.ones((1, times.sum())), *repeated)
    assert ours == pytest.approx(theirs, nan_ok=True)


def test_cumulative_score_includes_errors_of_exactly_k_years() -> None:
    assert cumulative_score(floats(0, 4.9, 5, 5.1), (0, 5, 6)).tolist() == [0.25, 0.75, 1]


def test_confusion_has_true_classes_in_rows_and_predictions_in_columns() -> None:
    true, predicted = integers(0, 0, 0, 1, 1), integers(0, 0, 1, 1, 1)
    assert confusion(true, predicted, 2).tolist() == [[2, 1], [0, 2]]
    assert confusion(integers(2, 2, 0), integers(2, 1, 0), 3).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


def test_roc_curve_matches_hand_computation() -> None:
    curve = roc(floats(0.9, 0.8, 0.7, 0.7, 0.2), integers(1, 1, 0, 1, 0))
    assert curve is not None
    # two positive ones, then a negative and a positive one at once, then a negative one
    assert curve.true_positive.tolist() == pytest.approx([0, 2 / 3, 1, 1])
    assert curve.false_positive.tolist() == [0, 0, 0.5, 1]
    assert curve.at_threshold == (0.5, 1.0)


@given(ANSWERS)
def test_roc_curve_is_monotonic_with_area_equal_to_auroc(
    answers: list[tuple[float, int]],
) -> None:
    score, positive = split(answers)
    curve = roc(score, positive)
    if not 0 < positive.sum() < len(positive):
        assert curve is None
        return
    assert curve is not None
    points = np.stack([curve.false_positive, curve.true_positive])
    assert points[:, 0].tolist() == [0, 0] and points[:, -1].tolist() == [1, 1] and (np.diff(points) >= 0).all()
    area = (np.diff(points[0]) * (points[1, 1:] + points[1, :-1]) / 2).sum()
    assert area == pytest.approx(weighted_auroc(once(positive), score, positive)[0])
