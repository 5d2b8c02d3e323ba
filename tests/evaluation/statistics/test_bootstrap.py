"""The bootstrap: whole photographs are drawn, the same ones for the same seed, and intervals are as wide as theory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.evaluation.statistics.bootstrap import draw_weights, number_clusters, percentile_intervals, resample

GROUPS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30)


def weights_of(clusters: NDArray[np.int64], resamples: int, seed: int = 0) -> NDArray[np.float64]:
    return np.concatenate(list(draw_weights(clusters, resamples, seed)))


def mean_of(values: NDArray[np.float64], clusters: NDArray[np.int64], resamples: int) -> NDArray[np.float64]:
    """The mean in each resample."""
    return resample(lambda weights: (weights @ values / weights.sum(1))[:, None], clusters, resamples, 0)[:, 0]


def test_groups_are_numbered_in_order_of_appearance() -> None:
    assert number_clusters(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


@given(GROUPS, st.integers(1, 20), st.integers(0, 5))
def test_resample_draws_whole_groups_as_many_as_given(groups: list[str], resamples: int, seed: int) -> None:
    clusters = number_clusters(groups)
    weights = weights_of(clusters, resamples, seed)
    assert weights.shape == (resamples, len(groups))
    first = [groups.index(group) for group in dict.fromkeys(groups)]
    assert (weights == weights[:, [groups.index(group) for group in groups]]).all()  # members count alike
    assert (weights[:, first].sum(1) == len(first)).all()


def test_draws_depend_on_the_seed_and_not_on_their_number() -> None:
    clusters = np.arange(30)
    assert (weights_of(clusters, 450)[:150] == weights_of(clusters, 150)).all()
    assert (weights_of(clusters, 50) != weights_of(clusters, 50, seed=1)).any()
    assert len(np.unique(weights_of(clusters, 450), axis=0)) == 450  # no draw is repeated from chunk to chunk


def test_resampled_means_scatter_around_the_mean_by_its_standard_error() -> None:
    values = np.random.default_rng(1).exponential(5, 400)
    means = mean_of(values, np.arange(400), 4000)
    error = values.std() / np.sqrt(400)
    assert means.mean() == pytest.approx(values.mean(), abs=0.1 * error)
    assert means.std() == pytest.approx(error, rel=0.05)


def test_interval_is_not_narrowed_by_copies() -> None:
    values = np.random.default_rng(1).normal(0, 1, 100)
    single = mean_of(values, np.arange(100), 4000)
    copied = mean_of(np.repeat(values, 4), np.repeat(np.arange(100), 4), 4000)
    alone = mean_of(np.repeat(values, 4), np.arange(400), 4000)
    assert copied.std() == pytest.approx(single.std(), rel=0.01)
    assert alone.std() == pytest.approx(single.std() / 2, rel=0.05)  # what one would be fooled by


def test_interval_has_its_nominal_coverage() -> None:
    random, held = np.random.default_rng(5), 0
    for _ in range(200):
        values = random.normal(10, 3, 60)
        (found,) = percentile_intervals(np.array([values.mean()]), mean_of(values, np.arange(60), 400)[:, None])
        held += found.low <= 10 <= found.high
    assert 0.90 * 200 <= held <= 0.99 * 200


def test_interval_ends_are_percentiles_of_the_finite_resamples() -> None:
    samples = np.stack([np.arange(1001.0), np.where(np.arange(1001) % 2, np.nan, 7.0), np.full(1001, np.nan)], axis=1)
    first, second, third = percentile_intervals(np.array([500.0, 7, np.nan]), samples)
    assert (first.value, first.low, first.high) == pytest.approx((500, 25, 975))
    assert (second.low, second.high) == (7, 7)
    assert np.isnan([third.value, third.low, third.high]).all()
