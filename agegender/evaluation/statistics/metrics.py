"""Metrics of a run's predictions (age errors, CS@k, AUROC, ROC, confusion) and the age bands they are sliced by.

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
AGE_BANDS = (*(f"{low}-{high - 1}" for low, high in itertools.pairwise(_BAND_STARTS)), "70+")
THRESHOLD = 0.5
COVERAGE = 0.8  # nominal coverage of the predicted age intervals
GROWN = 5  # years; from this age on, gender is visible in most faces


def age_bands(age: NDArray[Any]) -> Integers:
    """Return the index of each age's band in `AGE_BANDS`; ages `[n]` in years, from 0."""
    return np.asarray(np.digitize(age, _BAND_STARTS[1:]), dtype=np.int64)


def predicts_female(p_female: Floats) -> NDArray[np.bool_]:
    """Return which predictions are "female": strictly above the threshold, as in the accuracy logged by training."""
    return p_female > THRESHOLD


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


def weighted_auroc(weights: Floats, p_female: Floats, gender: Integers) -> Floats:
    """Return the exact area under the ROC curve: the probability that a female image gets the higher `p_female`.

    Computed from ranks, as the Mann-Whitney statistic; ties count half (Hanley and McNeil, Radiology 1982).

    Args:
        weights: `[b, n]`, how often each image counts.
        p_female: `[n]`.
        gender: `[n]`, 0 = male, 1 = female.

    Returns:
        `[b]`; NaN where only one gender counts.
    """
    male, female = np.flatnonzero(gender == 0), np.flatnonzero(gender == 1)
    male = male[np.argsort(p_female[male], kind="stable")]
    below = np.zeros((len(weights), len(male) + 1))  # cumulative weight of the first i male images, ascending
    np.cumsum(weights[:, male], axis=1, out=below[:, 1:])
    lower = np.searchsorted(p_female[male], p_female[female], side="left")
    upper = np.searchsorted(p_female[male], p_female[female], side="right")
    won = (weights[:, female] * (below[:, lower] + below[:, upper])).sum(1) / 2
    return safe_divide(won, weights[:, female].sum(1) * below[:, -1])


def cumulative_score(errors: Floats, years: Sequence[float]) -> Floats:
    """Return the fraction of absolute errors `[n]` of at most k years, for each k (CS@k; Geng et al., TPAMI 2007).

    NaN if there are no errors.
    """
    within = np.array([(errors <= limit).sum() for limit in years], dtype=np.float64)
    return safe_divide(within, np.array(len(errors), dtype=np.float64))


def confusion(gender: Integers, female: NDArray[np.bool_]) -> Integers:
    """Return the confusion matrix `[2, 2]`: true gender (rows: male, female) by predicted gender (columns)."""
    counts = np.bincount(gender * 2 + female, minlength=4)
    return counts.reshape(2, 2).astype(np.int64)


@dataclass(frozen=True)
class Roc:
    """The vertices of the ROC curve of "female", from (0, 0) to (1, 1), and the operating point.

    Attributes:
        false_female: `[k]`, false positive rate: the fraction of male images above a threshold that decreases with k.
        true_female: `[k]`, true positive rate: the fraction of female images above it.
        at_threshold: Both rates at a threshold of 0.5.
    """

    false_female: Floats
    true_female: Floats
    at_threshold: tuple[float, float]


def roc(p_female: Floats, gender: Integers) -> Roc | None:
    """Return the ROC curve of "female" (Fawcett, Pattern Recognition Letters 2006); None if a gender is missing."""
    women = int(gender.sum())
    men = len(gender) - women
    if not women or not men:
        return None
    order = np.argsort(-p_female, kind="stable")
    last_of_level = np.flatnonzero(np.diff(p_female[order], append=-1.0))  # images of equal p_female form one vertex
    true = np.concatenate([[0], np.cumsum(gender[order])[last_of_level]])
    false = np.concatenate([[0], last_of_level + 1]) - true
    # A vertex on the straight line between its neighbors adds nothing to the drawn curve.
    turn = np.diff(true[1:]) * np.diff(false[:-1]) != np.diff(true[:-1]) * np.diff(false[1:])
    kept = np.concatenate([[True], turn, [True]])
    counts = confusion(gender, predicts_female(p_female))
    return Roc(false[kept] / men, true[kept] / women, (counts[0, 1] / men, counts[1, 1] / women))
