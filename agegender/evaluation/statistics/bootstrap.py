"""Cluster bootstrap over the test images: copies of one photograph are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agegender.evaluation.statistics.metrics import Floats, Integers

CONFIDENCE = 0.95
_CHUNK = 200  # resamples per block: 8 MB of weights for UTKFace's test set


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % confidence interval; NaN where no image counts."""

    value: float
    low: float
    high: float


def number_clusters(groups: Sequence[str]) -> Integers:
    """Return the cluster number of each group name `[n]`, from 0 in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def draw_weights(clusters: Integers, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw whole clusters with replacement, as many as there are clusters.

    This is the cluster bootstrap (Field and Welsh, "Bootstrapping Clustered Data", JRSS B 2007): members of a cluster
    are correlated, and drawing them one by one would make the intervals too narrow.

    Args:
        clusters: `[n]`, the cluster of each image, numbered from 0 without a gap.
        resamples: Number of resamples.
        seed: The same seed and clusters give the same draws.

    Yields:
        Blocks of weights `[b, n]`, how often each image counts; `resamples` rows in total.
    """
    generator, count = np.random.default_rng(seed), int(clusters.max()) + 1
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, clusters].astype(np.float64)


def resample(statistics: Callable[[Floats], Floats], clusters: Integers, resamples: int, seed: int) -> Floats:
    """Compute statistics in every resample.

    Args:
        statistics: Maps weights `[b, n]` to values `[b, k]`.
        clusters: See `draw_weights`.
        resamples: See `draw_weights`.
        seed: See `draw_weights`.

    Returns:
        `[resamples, k]`.
    """
    return np.concatenate([statistics(weights) for weights in draw_weights(clusters, resamples, seed)])


def percentile_intervals(values: Floats, samples: Floats) -> list[Estimate]:
    """Return each value with its percentile interval (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    A resample in which a value is undefined (NaN), such as one without any image of a rare group, is left out.

    Args:
        values: `[k]`, on the original images.
        samples: `[resamples, k]`.
    """
    tail = (1 - CONFIDENCE) / 2
    found = []
    for value, column in zip(values.tolist(), samples.T, strict=True):
        counted = column[np.isfinite(column)]
        low, high = np.quantile(counted, (tail, 1 - tail)) if len(counted) else (np.nan, np.nan)
        found.append(Estimate(value, float(low), float(high)))
    return found
