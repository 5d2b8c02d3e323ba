"""Fit the calibration of ages and genders to the predictions on the validation faces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agegender.tasks.calibration import COVERAGE, MAX_AGE, Calibration

Floats = NDArray[np.float64]

NUM_KNOTS = 9  # predicted ages at which the spread is estimated
BANDWIDTH = 0.08  # fraction of the faces in the neighborhood of a predicted age
# Fraction of the faces in the neighborhood of a true age, for the interval: a wider one mixes the faces of 3 to 9 years
# with older ones. Chosen by fitting to two thirds of the validation faces and measuring coverage on the others.
AGE_BANDWIDTH = 0.04
MIN_NEIGHBORS = 60  # minimum number of faces in a neighborhood, if there are as many
MIN_RADIUS = 1.0  # minimum half-width of a neighborhood in years
SMOOTHING = 0.5, 0.05  # years, and years per year of age: standard deviation of the kernel that smooths the quantiles


def fit_calibration(
    answers: Floats,
    stated: Floats,
    logits: Floats,
    age: Floats,
    gender: Floats,
    corrupted: Floats | None = None,
) -> Calibration | None:
    """Fit a calibration to faces that the network was not trained on.

    The calibration of ages must hold for users' images, not only for clean crops: it is fitted to the faces as they are
    and with mild corruptions. The calibration of genders is fitted to the faces as they are.

    Args:
        answers: `[n]`, predicted ages in years.
        stated: `[n]`, predicted spreads in years; ones if the network predicts none.
        logits: `[n]`, gender logits.
        age: `[n]`, true ages in years; NaN if unknown.
        gender: `[n]`, 0 or 1; NaN if unknown. Without any label of a task, the task is not calibrated.
        corrupted: `[m, 5]`, the same five columns for corrupted faces (`data/augmentation/corruptions.py`).

    Returns:
        The calibration; None if a prediction is not finite, because the network has diverged.
    """
    stated = np.maximum(stated, _NARROWEST)
    if not all(np.isfinite(values).all() for values in (answers, stated, logits)):
        return None
    known = np.isfinite(gender)
    divisor, threshold = 1.0, (0.5, 1.0)
    if known.any():
        divisor = temperature(logits[known], gender[known])
        threshold = min_confidence(1 / (1 + np.exp(-logits[known] / divisor)), gender[known])
    if corrupted is not None and np.isfinite(corrupted[:, :3]).all():
        answers = np.concatenate((answers, corrupted[:, 0]))
        stated = np.concatenate((stated, np.maximum(corrupted[:, 1], _NARROWEST)))
        age = np.concatenate((age, corrupted[:, 3]))
    known = np.isfinite(age)
    if not known.any():
        return Calibration(divisor, [], [], [], [], *threshold)
    answers, stated, age = answers[known], stated[known], age[known]
    knots, factors = _spread(answers, (age - answers) / stated)
    low, high = _quantiles((age - answers) / np.sqrt(stated), age)
    return Calibration(
        temperature=divisor,
        ages=knots.tolist(),
        std=factors.tolist(),
        low=low.tolist(),
        high=high.tolist(),
        min_confidence=threshold[0],
        answered=threshold[1],
    )


ANSWERED_RIGHT = 0.97  # target accuracy of the genders that are not `unsure`
_FEWEST = 50  # minimum number of faces for an accuracy, if there are as many


def min_confidence(p_female: Floats, gender: Floats) -> tuple[float, float]:
    """Return the lowest confidence threshold with an accuracy of at least `ANSWERED_RIGHT` above it.

    The confidence is the probability of the likelier gender. This is selective classification (Geifman and El-Yaniv,
    "Selective Classification for Deep Neural Networks", NeurIPS 2017), with the softmax response.

    Args:
        p_female: `[n]`, n at least 1.
        gender: `[n]`, 0 or 1.

    Returns:
        The threshold, and the fraction of faces above it (the coverage). If no threshold reaches the target, it is the
        one with the highest accuracy among those with at least `_FEWEST` faces above.
    """
    confidence = np.maximum(p_female, 1 - p_female)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    accuracy = np.cumsum((p_female > 0.5)[order] == gender[order]) / np.arange(1, len(order) + 1)
    last_of_level = np.append(ranked[1:] < ranked[:-1], True)  # equal confidences stay together
    allowed = last_of_level & (np.arange(1, len(order) + 1) >= min(_FEWEST, len(order)))
    enough = np.flatnonzero(allowed & (accuracy >= ANSWERED_RIGHT))
    last = int(enough[-1]) if len(enough) else int(np.argmax(np.where(allowed, accuracy, -1)))
    if last == len(order) - 1:
        return 0.5, 1.0
    return float(ranked[last]), (last + 1) / len(order)


_NARROWEST = 1e-3  # minimum spread in years: a network that is certain of one age predicts 0


def temperature(logits: Floats, gender: Floats) -> float:
    """Return the temperature of the logits that minimizes the cross-entropy (Guo et al., ICML 2017).

    Args:
        logits: `[n]`.
        gender: `[n]`, 0 or 1.

    Returns:
        A value from 0.05 to 20; unbounded, the minimum would lie at zero if all predictions are correct.
    """

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - gender * scaled).mean())

    return float(np.exp(_lowest(cross_entropy, -3.0, 3.0)))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimizer of a unimodal function by golden-section search (Kiefer 1953)."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _spread(answers: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Return predicted ages, and the root mean square error of the faces in the neighborhood of each."""
    knots = np.unique(np.quantile(answers, (np.arange(NUM_KNOTS) + 0.5) / NUM_KNOTS))
    weights = _near(knots, answers, BANDWIDTH)
    return knots, np.sqrt(weights @ errors**2 / weights.sum(1))


def _quantiles(errors: Floats, age: Floats) -> tuple[Floats, Floats]:
    """Return the lower and the upper quantile of the errors around each age from 0 to `MAX_AGE`, smoothed.

    Without smoothing, jumps from age to age leave gaps between the ages that fit a prediction, and the interval over
    the gaps covers too much.
    """
    ages = np.arange(MAX_AGE + 1.0)
    weights = _near(ages, age, AGE_BANDWIDTH)
    order = np.argsort(errors)
    weights, ranked = weights[:, order], errors[order]
    below = (np.cumsum(weights, 1) - weights / 2) / weights.sum(1, keepdims=True)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    found = np.array([np.interp(ends, row, ranked) for row in below])
    blur = np.exp(-(((ages[:, None] - ages) / (SMOOTHING[0] + SMOOTHING[1] * ages[:, None])) ** 2) / 2)
    low, high = (blur / blur.sum(1, keepdims=True) @ found).T
    return low, high


def _near(centers: Floats, values: Floats, share: float) -> Floats:
    """Return the tricube weight of each value around each center, `[centers, n]`, as in LOESS.

    A neighborhood is as wide as needed to contain a fraction `share` of the values (Cleveland, JASA 1979).
    """
    distance = np.abs(values - centers[:, None])
    count = min(len(values), max(MIN_NEIGHBORS, round(share * len(values))))
    reach = np.maximum(np.sort(distance, 1)[:, count - 1 : count], MIN_RADIUS) * (1 + 1e-9) + 1e-9
    weights: Floats = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    return weights
