"""Standardized metrics and intervals of the largest gap, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from agegender.evaluation.statistics.gaps import largest_gap, standardize


def test_standardized_metric_is_the_weighted_mean_of_the_bands() -> None:
    # (1 * 30 + 5 * 10) / 40 and (2 * 30 + 4 * 10) / 40
    by_band = np.array([[1.0, 5.0], [2.0, 4.0]])
    assert standardize(by_band, np.array([30.0, 10.0])).tolist() == [2.0, 2.5]


def test_gap_of_two_groups_has_the_interval_of_their_difference() -> None:
    samples = np.stack([5 + np.linspace(-1, 1, 101), np.full(101, 3.0)], axis=1)
    gap = largest_gap(np.array([5.0, 3.0]), samples)
    assert (gap.highest, gap.lowest) == (0, 1)
    assert vars(gap.difference) == pytest.approx({"value": 2, "low": 2 - 0.96, "high": 2 + 0.96})  # 95 % lie within


def test_gap_interval_leaves_out_resamples_without_an_image_of_a_group() -> None:
    samples = np.array([[5.0, 3.0], [np.nan, 3.0], [5.5, 3.5]])
    assert vars(largest_gap(np.array([5.0, 3.0]), samples).difference) == {"value": 2, "low": 2, "high": 2}
    undefined = largest_gap(np.array([5.0, 3.0]), np.full((2, 2), np.nan)).difference
    assert undefined.value == 2 and np.isnan([undefined.low, undefined.high]).all()


def test_gap_of_equal_groups_is_zero_with_an_interval_around_it() -> None:
    gap = largest_gap(np.array([4.0, 4.0]), np.array([[4.0, 5.0], [5.0, 4.0], [3.0, 4.0]]))
    assert gap.highest != gap.lowest and gap.difference.value == 0
    assert gap.difference.low < 0 < gap.difference.high


def test_gap_interval_of_equal_groups_contains_zero_in_95_percent_of_samples() -> None:
    generator = np.random.default_rng(0)
    held = plain = 0
    for _ in range(400):
        values = generator.normal(size=5)  # five groups that are equal but for chance
        samples = values + generator.normal(size=(400, 5))
        found = largest_gap(values, samples)
        held += int(found.difference.low <= 0)
        naive = np.quantile(samples[:, found.highest] - samples[:, found.lowest], 0.025)
        plain += int(naive <= 0)
    assert 0.92 <= held / 400 <= 0.98
    assert plain / 400 < 0.8  # the interval of a single pair, chosen by its gap, is too narrow
