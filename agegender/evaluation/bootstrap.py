"""How sure is a figure? Resampling of the test images, copies of one photograph being one draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agegender.evaluation.measures import Floats, Integers

CONFIDENCE = 0.95
_CHUNK = 200  # resamples at a time: 8 MB of weights for UTKFace's test set


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is nothing to count."""

    value: float
    low: float
    high: float


def number_clusters(groups: Sequence[str]) -> Integers:
    """Numbers groups from 0 in the order in which they first appear: `[n]`."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def draw_weights(clusters: Integers, resamples: int, seed: int) -> Iterator[Floats]:
    """Draws whole clusters with replacement, as many as there are.

    This is the cluster bootstrap (Field and Welsh, "Bootstrapping Clustered Data", JRSS B 2007): members of a cluster
    are alike, and drawing them one by one would make a figure look surer than it is.

    Args:
        clusters: `[n]`, the cluster of each image, numbered from 0 without a gap.
        resamples: How many.
        seed: Same seed and clusters, same draws.

    Yields:
        How often each image counts, `[b, n]`, until there are `resamples` rows.
    """
    generator, count = np.random.default_rng(seed), int(clusters.max()) + 1
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        drawn = generator.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, clusters].astype(np.float64)


def resample(statistics: Callable[[Floats], Floats], clusters: Integers, resamples: int, seed: int) -> Floats:
    """Counts figures anew in every resample.

    Args:
        statistics: Takes weights `[b, n]`, returns figures `[b, k]`.
        clusters: See `draw_weights`.
        resamples: See `draw_weights`.
        seed: See `draw_weights`.

    Returns:
        `[resamples, k]`.
    """
    return np.concatenate([statistics(weights) for weights in draw_weights(clusters, resamples, seed)])


def estimates(values: Floats, samples: Floats) -> list[Estimate]:
    """Puts the percentile interval (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993) on each figure.

    A resample in which a figure can't be counted, such as one without any image of a rare group, is left out of it.

    Args:
        values: `[k]`, of the images themselves.
        samples: `[resamples, k]`.
    """
    tail = (1 - CONFIDENCE) / 2
    found = []
    for value, column in zip(values.tolist(), samples.T, strict=True):
        counted = column[np.isfinite(column)]
        low, high = np.quantile(counted, (tail, 1 - tail)) if len(counted) else (np.nan, np.nan)
        found.append(Estimate(value, float(low), float(high)))
    return found
