"""Fits the calibration: how far, on the validation faces, were the answers off, and how sure was the network?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agegender.models.calibration import HELD, OLDEST, Calibration

Floats = NDArray[np.float64]

KNOTS = 9  # answers at which the spread is looked at
SHARE = 0.08  # of the faces, that an answer's neighbourhood holds
# That an age's neighbourhood holds, for the interval: a wider one mixes the faces of 3 to 9 years with older ones.
# Chosen by fitting to two thirds of the validation faces and counting in the others.
AGE_SHARE = 0.04
LEAST = 60  # faces of a neighbourhood, if there are so many
REACH = 1.0  # years either way, that it has at the least
BLUR = 0.5, 0.05  # years, and their share of the age: the standard deviation that the quantiles are smoothed with


def fit_calibration(
    answers: Floats,
    stated: Floats,
    logits: Floats,
    age: Floats,
    gender: Floats,
    corrupted: Floats | None = None,
) -> Calibration | None:
    """Fits a calibration to faces that the network was not trained on.

    What is said of ages must hold for pictures as people have them, not for clean crops only: it is fitted to the faces
    as they are and to the same ones under harmless changes. What is said of genders is fitted to them as they are.

    Args:
        answers: `[n]`, predicted ages in years.
        stated: `[n]`, the network's own spread of each, in years; ones where it states none.
        logits: `[n]`, of gender.
        age: `[n]`, true ages in years; NaN where it is not known.
        gender: `[n]`, 0 or 1; likewise. Of what no face has a label, nothing is said.
        corrupted: `[m, 5]`, the same five columns of faces under harmless changes (`data/corruptions.py`).

    Returns:
        None where an answer is not a number: that network has diverged.
    """
    stated = np.maximum(stated, _NARROWEST)
    if not all(np.isfinite(values).all() for values in (answers, stated, logits)):
        return None
    known = np.isfinite(gender)
    divisor, confident = 1.0, (0.5, 1.0)
    if known.any():
        divisor = temperature(logits[known], gender[known])
        confident = min_confidence(1 / (1 + np.exp(-logits[known] / divisor)), gender[known])
    if corrupted is not None and np.isfinite(corrupted[:, :3]).all():
        answers = np.concatenate((answers, corrupted[:, 0]))
        stated = np.concatenate((stated, np.maximum(corrupted[:, 1], _NARROWEST)))
        age = np.concatenate((age, corrupted[:, 3]))
    known = np.isfinite(age)
    if not known.any():
        return Calibration(divisor, [], [], [], [], *confident)
    answers, stated, age = answers[known], stated[known], age[known]
    knots, factors = _spread(answers, (age - answers) / stated)
    low, high = _quantiles((age - answers) / np.sqrt(stated), age)
    return Calibration(
        temperature=divisor,
        ages=knots.tolist(),
        std=factors.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        min_confidence=confident[0],
        answered=confident[1],
    )


ANSWERED_RIGHT = 0.97  # share of the answered genders that must be right
_FEWEST = 50  # faces that a share is counted from, if there are so many


def min_confidence(p_female: Floats, gender: Floats) -> tuple[float, float]:
    """Returns the least confidence from which on `ANSWERED_RIGHT` of the answered genders are right.

    The confidence is the probability of the likelier gender. This is selective classification (Geifman and El-Yaniv,
    "Selective Classification for Deep Neural Networks", NeurIPS 2017), with the softmax response.

    Args:
        p_female: `[n]`, at least one.
        gender: `[n]`, 0 or 1.

    Returns:
        The threshold, and the share of faces that get an answer. Where no threshold is enough, it is the one whose
        answers are right most often, of those that answer for `_FEWEST` faces.
    """
    confidence = np.maximum(p_female, 1 - p_female)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    right = np.cumsum((p_female > 0.5)[order] == gender[order]) / np.arange(1, len(order) + 1)
    last_of_level = np.append(ranked[1:] < ranked[:-1], True)  # faces of one confidence are answered together
    allowed = last_of_level & (np.arange(1, len(order) + 1) >= min(_FEWEST, len(order)))
    enough = np.flatnonzero(allowed & (right >= ANSWERED_RIGHT))
    place = int(enough[-1]) if len(enough) else int(np.argmax(np.where(allowed, right, -1)))
    if place == len(order) - 1:
        return 0.5, 1.0
    return float(ranked[place]), (place + 1) / len(order)


_NARROWEST = 1e-3  # years: a network that is sure of a single age states none at all


def temperature(logits: Floats, gender: Floats) -> float:
    """Returns what the logits must be divided by for the least cross-entropy (Guo et al., ICML 2017).

    Args:
        logits: `[n]`.
        gender: `[n]`, 0 or 1.

    Returns:
        From 0.05 to 20: of faces that are all answered right, the least would lie at zero.
    """

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - gender * scaled).mean())

    return float(np.exp(_lowest(cross_entropy, -3.0, 3.0)))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Returns where a function with one valley is lowest, by golden-section search (Kiefer 1953)."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _spread(answers: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Returns answers, and the root mean square of the errors of faces that were answered about so."""
    knots = np.unique(np.quantile(answers, (np.arange(KNOTS) + 0.5) / KNOTS))
    weights = _near(knots, answers, SHARE)
    return knots, np.sqrt(weights @ errors**2 / weights.sum(1))


def _quantiles(errors: Floats, age: Floats) -> tuple[Floats, Floats]:
    """Returns the lower and the upper quantile of the errors around each age from 0 to `OLDEST`, smoothed.

    Where they jump from age to age, the ages that fit an answer have gaps, and the interval over them holds too many.
    """
    ages = np.arange(OLDEST + 1.0)
    weights = _near(ages, age, AGE_SHARE)
    order = np.argsort(errors)
    weights, ranked = weights[:, order], errors[order]
    below = (np.cumsum(weights, 1) - weights / 2) / weights.sum(1, keepdims=True)
    ends = [(1 - HELD) / 2, (1 + HELD) / 2]
    found = np.array([np.interp(ends, row, ranked) for row in below])
    blur = np.exp(-(((ages[:, None] - ages) / (BLUR[0] + BLUR[1] * ages[:, None])) ** 2) / 2)
    low, high = (blur / blur.sum(1, keepdims=True) @ found).T
    return low, high


def _near(centres: Floats, values: Floats, share: float) -> Floats:
    """Returns how much each value counts around each centre `[centres, n]`: the tricube of its distance, as in LOESS.

    A neighbourhood reaches as far as it takes to hold a share of the values (Cleveland, JASA 1979).
    """
    distance = np.abs(values - centres[:, None])
    count = min(len(values), max(LEAST, round(share * len(values))))
    reach = np.maximum(np.sort(distance, 1)[:, count - 1 : count], REACH) * (1 + 1e-9) + 1e-9
    weights: Floats = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    return weights
