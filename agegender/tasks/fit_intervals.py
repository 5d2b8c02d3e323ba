"""Fit standard deviations and prediction intervals of a number to the predictions on the validation faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agegender.tasks.intervals import COVERAGE, STEPS, IntervalCalibration

Floats = NDArray[np.float64]

NUM_KNOTS = 9  # predicted values at which the spread is estimated
BANDWIDTH = 0.08  # fraction of the faces in the neighborhood of a predicted value
# Fraction of the faces in the neighborhood of a true value, for the interval: a wider one mixes the faces of 3 to 9
# years with older ones. Chosen by fitting to two thirds of the validation faces and measuring coverage on the others.
LABEL_BANDWIDTH = 0.04
MIN_NEIGHBORS = 60  # minimum number of faces in a neighborhood, if there are as many
# In steps between possible values (years for ages):
MIN_RADIUS = 1.0  # minimum half-width of a neighborhood
SMOOTHING = 0.5, 0.05  # of the kernel that smooths the quantiles: its standard deviation, and its growth per step
NARROWEST = 1e-3  # minimum spread: a network that is certain of one value predicts 0


def fit_intervals(value: Floats, spread: Floats, label: Floats, limits: Sequence[float]) -> IntervalCalibration:
    """Fit a calibration to faces that the network was not trained on.

    It must hold for users' images, not only for clean crops: the caller passes the faces as they are and with mild
    corruptions (`data/augmentation/corruptions.py`).

    Args:
        value: `[n]`, predicted values, n at least 1.
        spread: `[n]`, predicted spreads; ones if the task predicts none.
        label: `[n]`, true values.
        limits: The lowest and the highest possible value.
    """
    start, stop = limits
    step = (stop - start) / STEPS
    spread = np.maximum(spread, NARROWEST * step)
    knots, factors = _spread(value, (label - value) / spread, step)
    low, high = _quantiles((label - value) / np.sqrt(spread), label, start, step)
    return IntervalCalibration(knots.tolist(), factors.tolist(), low.tolist(), high.tolist(), [start, stop])


def _spread(value: Floats, errors: Floats, step: float) -> tuple[Floats, Floats]:
    """Return predicted values, and the root mean square error of the faces in the neighborhood of each."""
    knots = np.unique(np.quantile(value, (np.arange(NUM_KNOTS) + 0.5) / NUM_KNOTS))
    weights = _near(knots, value, BANDWIDTH, step)
    return knots, np.sqrt(weights @ errors**2 / weights.sum(1))


def _quantiles(errors: Floats, label: Floats, start: float, step: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper quantile of the errors around each possible value, smoothed.

    Without smoothing, jumps from value to value leave gaps between those that fit a prediction, and the interval over
    the gaps covers too much.
    """
    steps = np.arange(STEPS + 1.0)
    weights = _near(start + step * steps, label, LABEL_BANDWIDTH, step)
    order = np.argsort(errors)
    weights, ranked = weights[:, order], errors[order]
    below = (np.cumsum(weights, 1) - weights / 2) / weights.sum(1, keepdims=True)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    found = np.array([np.interp(ends, row, ranked) for row in below])
    blur = np.exp(-(((steps[:, None] - steps) / (SMOOTHING[0] + SMOOTHING[1] * steps[:, None])) ** 2) / 2)
    low, high = (blur / blur.sum(1, keepdims=True) @ found).T
    return low, high


def _near(centers: Floats, values: Floats, share: float, step: float) -> Floats:
    """Return the tricube weight of each value around each center, `[centers, n]`, as in LOESS.

    A neighborhood is as wide as needed to contain a fraction `share` of the values (Cleveland, JASA 1979).
    """
    distance = np.abs(values - centers[:, None])
    count = min(len(values), max(MIN_NEIGHBORS, round(share * len(values))))
    reach = np.maximum(np.sort(distance, 1)[:, count - 1 : count], MIN_RADIUS * step) * (1 + 1e-9) + 1e-9 * step
    weights: Floats = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
    return weights
