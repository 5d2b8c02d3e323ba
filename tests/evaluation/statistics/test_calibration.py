"""Calibration, against cases counted by hand, torchmetrics, and draws whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from agegender.evaluation.statistics.calibration import reliability, spread, weighted_ece, within_interval


def test_bins_are_half_open_except_the_last() -> None:
    probability = np.array([*(i / 10 for i in range(11)), 0.05, 0.999])
    counts = reliability(probability, np.zeros(13, dtype=np.int64)).images
    assert counts.tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1, 3]


def test_bin_holds_its_mean_probability_and_fraction_of_the_outcome() -> None:
    bins = reliability(np.array([0.62, 0.68, 0.66, 0.1]), np.array([1, 0, 1, 0]))
    assert bins.low.tolist() == [i / 10 for i in range(10)]
    assert bins.probability[6] == pytest.approx(0.6533333) and bins.observed[6] == pytest.approx(2 / 3)
    assert (bins.probability[1], bins.observed[1]) == (0.1, 0)
    assert np.isnan(bins.probability[0]) and np.isnan(bins.observed[0])  # empty


def test_calibration_error_is_the_mean_distance_weighted_by_images() -> None:
    probability, outcome = np.array([0.9, 0.9, 0.05, 0.05]), np.array([1, 0, 0, 0])
    assert weighted_ece(np.ones((1, 4)), probability, outcome) == pytest.approx([(2 * 0.4 + 2 * 0.05) / 4])
    assert weighted_ece(np.array([[3.0, 0, 1, 0]]), probability, outcome) == pytest.approx([(3 * 0.1 + 0.05) / 4])


# away from the bins' edges, where torchmetrics' float32 may fall on the other side
INSIDE = st.integers(0, 99).map(lambda place: (place + 0.5) / 100)


@given(st.lists(st.tuples(INSIDE, st.integers(0, 1)), min_size=1, max_size=40))
def test_calibration_error_equals_that_of_torchmetrics(answers: list[tuple[float, int]]) -> None:
    probability, outcome = np.array([p for p, _ in answers]), np.array([outcome for _, outcome in answers])
    theirs = binary_calibration_error(torch.tensor(probability), torch.tensor(outcome), n_bins=10, norm="l1").item()
    assert weighted_ece(np.ones((1, len(outcome))), probability, outcome)[0] == pytest.approx(theirs, abs=1e-5)


def test_central_interval_matches_the_normal_table() -> None:
    errors = np.array([0, 2.56, 2.57, 0, 0.1])
    assert within_interval(errors, np.array([2.0, 2, 2, 0, 0]), 0.8).tolist() == [
        1,
        1,
        0,
        1,
        0,
    ]  # 1.2816 standard deviations


def test_coverage_is_nominal_for_the_true_std_and_lower_for_half() -> None:
    random = np.random.default_rng(3)
    std = random.uniform(2, 12, 20_000)
    errors = np.abs(random.normal(0, std))
    fitting, narrow = spread(errors, std), spread(errors, std / 2)
    assert fitting is not None and narrow is not None
    assert fitting.nominal.tolist() == pytest.approx([i / 10 for i in range(1, 10)])
    assert fitting.observed == pytest.approx(fitting.nominal, abs=0.01)
    assert narrow.observed[7] == pytest.approx(0.478, abs=0.01)  # P(|z| < 0.6408)
    assert fitting.bin_images.tolist() == [2000] * 10
    assert fitting.bin_rmse == pytest.approx(fitting.bin_std, rel=0.06)
    assert (np.diff(fitting.bin_std) > 0).all()


def test_std_bins_match_hand_computation() -> None:
    found = spread(np.array([3.0, 4, 1, 1]), np.array([5.0, 5, 1, np.nan]))
    assert found is not None
    assert found.images == 3 and found.bin_images.tolist() == [1, 2]
    assert found.bin_std.tolist() == [1, 5] and found.bin_rmse == pytest.approx([1, np.sqrt(12.5)])


def test_std_of_one_value_is_one_bin() -> None:
    found = spread(np.array([3.0, 4, 0]), np.full(3, 6.5))
    assert found is not None
    assert found.bin_images.tolist() == [3] and found.bin_std.tolist() == [6.5]
    assert found.bin_rmse == pytest.approx([np.sqrt(25 / 3)])


@given(st.lists(st.floats(0, 50) | st.just(float("nan")), min_size=1, max_size=30))
def test_std_bins_hold_every_value_once(std: list[float]) -> None:
    found = spread(np.ones(len(std)), np.array(std))
    stated = sum(value == value for value in std)
    assert (found.bin_images.sum() if found else 0) == stated
    assert (found is None) == (stated == 0)
    if found:
        assert (len(found.bin_std) == 1) == (len({value for value in std if value == value}) == 1)
        assert (np.diff(found.bin_std) >= -1e-9).all()
