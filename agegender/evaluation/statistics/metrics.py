"""Metrics of predictions (CS@k, AUROC, ROC, confusion), and the age bands they are sliced by.

Pure NumPy. A metric with a bootstrap interval takes `weights` `[b, n]`, how often each of `n` images counts in each of
`b` resamples (see `bootstrap.py`), and returns one value per resample. Weights of one give the metric itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BAND_STARTS = (0, 3, *range(10, 80, 10))
AGE = "age"  # the label whose bands are slices
AGE_BANDS = (*(f"{low}-{high - 1}" for low, high in itertools.pairwise(_BAND_STARTS)), "70+")
THRESHOLD = 0.5


def age_bands(age: NDArray[Any]) -> Integers:
    """Return the index of each age's band in `AGE_BANDS`; ages `[n]` in years, from 0."""
    return np.asarray(np.digitize(age, _BAND_STARTS[1:]), dtype=np.int64)


def weighted_means(weights: Floats, values: Floats, within: NDArray[np.bool_]) -> Floats:
    """Return the weighted mean of each column over the images that belong to it.

    Args:
        weights: `[b, n]`, how often each image counts.
        values: `[n, k]`.
        within: `[n, k]`, which images belong to which column.

    Returns:
        `[b, k]`; NaN where no image counts.
    """
    return safe_divide(weights @ np.where(within, values, 0.0), weights @ within.astype(np.float64))


def safe_divide(above: Floats, below: Floats) -> Floats:
    """Return `above / below`, and NaN without a warning where `below` is not positive."""
    quotient = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def weighted_auroc(weights: Floats, score: Floats, positive: NDArray[np.number[Any]]) -> Floats:
    """Return the exact area under the ROC curve: the probability that a positive image gets the higher score.

    Computed from ranks, as the Mann-Whitney statistic; ties count half (Hanley and McNeil, Radiology 1982).

    Args:
        weights: `[b, n]`, how often each image counts.
        score: `[n]`, probability of the positive class.
        positive: `[n]`, 1 for an image of the positive class, else 0.

    Returns:
        `[b]`; NaN where only one class counts.
    """
    below, above = np.flatnonzero(positive == 0), np.flatnonzero(positive == 1)
    below = below[np.argsort(score[below], kind="stable")]
    summed = np.zeros((len(weights), len(below) + 1))  # cumulative weight of the first i negative images, ascending
    np.cumsum(weights[:, below], axis=1, out=summed[:, 1:])
    lower = np.searchsorted(score[below], score[above], side="left")
    upper = np.searchsorted(score[below], score[above], side="right")
    won = (weights[:, above] * (summed[:, lower] + summed[:, upper])).sum(1) / 2
    return safe_divide(won, weights[:, above].sum(1) * summed[:, -1])


def cumulative_score(errors: Floats, limits: Sequence[float] | Floats) -> Floats:
    """Return the fraction of absolute errors `[n]` of at most k for each k in `limits`: CS@k (Geng et al., TPAMI 2007).

    NaN if there are no errors.
    """
    within = np.array([(errors <= limit).sum() for limit in limits], dtype=np.float64)
    return safe_divide(within, np.array(len(errors), dtype=np.float64))


def confusion(true: Integers, predicted: Integers, classes: int) -> Integers:
    """Return the confusion matrix `[classes, classes]`: true class (rows) by predicted class (columns)."""
    counts = np.bincount(true * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True)
class Roc:
    """The vertices of a ROC curve, from (0, 0) to (1, 1), and the operating point.

    Attributes:
        false_positive: `[k]`, fraction of the negative images above a threshold that decreases with k.
        true_positive: `[k]`, fraction of the positive images above it.
        at_threshold: Both rates at a threshold of 0.5.
    """

    false_positive: Floats
    true_positive: Floats
    at_threshold: tuple[float, float]


def roc(score: Floats, positive: Integers) -> Roc | None:
    """Return the ROC curve (Fawcett, Pattern Recognition Letters 2006); None if all images are of one class.

    Args:
        score: `[n]`, probability of the positive class.
        positive: `[n]`, 1 for an image of the positive class, else 0.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    order = np.argsort(-score, kind="stable")
    last_of_level = np.flatnonzero(np.diff(score[order], append=-1.0))  # images of equal score form one vertex
    true = np.concatenate([[0], np.cumsum(positive[order])[last_of_level]])
    false = np.concatenate([[0], last_of_level + 1]) - true
    # A vertex on the straight line between its neighbors adds nothing to the drawn curve.
    turn = np.diff(true[1:]) * np.diff(false[:-1]) != np.diff(true[:-1]) * np.diff(false[1:])
    kept = np.concatenate([[True], turn, [True]])
    counts = confusion(positive, (score > THRESHOLD).astype(np.int64), 2)
    return Roc(false[kept] / negatives, true[kept] / positives, (counts[0, 1] / negatives, counts[1, 1] / positives))
