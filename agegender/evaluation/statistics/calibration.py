"""Calibration of probabilities (reliability diagram, ECE) and of predicted standard deviations (coverage)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from agegender.evaluation.statistics.metrics import Floats, Integers, safe_divide
from agegender.tasks.info import HALF

BINS = 10
LEVELS = tuple(level / 10 for level in range(1, 10))


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: the observed fraction of an outcome per bin of its predicted probability.

    Attributes:
        low: `[bins]`, lower edge of each bin; the last bin ends at 1.
        images: `[bins]`, number of images.
        probability: `[bins]`, mean prediction; NaN in an empty bin.
        observed: `[bins]`, fraction of images with the outcome; NaN in an empty bin.
    """

    low: Floats
    images: Integers
    probability: Floats
    observed: Floats


def _bin_of(probability: Floats) -> Integers:
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def reliability(probability: Floats, outcome: Floats) -> Reliability:
    """Compute the reliability diagram over ten bins of equal width, closed below; the last is closed above too.

    Args:
        probability: `[n]`, predicted probability of the outcome.
        outcome: `[n]`, 1 where it occurred, else 0.
    """
    images = np.bincount(_bin_of(probability), minlength=BINS).astype(np.int64)
    sums = [np.bincount(_bin_of(probability), values, BINS) for values in (probability, outcome)]
    means, shares = (safe_divide(total.astype(np.float64), images.astype(np.float64)) for total in sums)
    return Reliability(np.arange(BINS) / BINS, images, means, shares)


def weighted_ece(weights: Floats, probability: Floats, outcome: Floats) -> Floats:
    """Return the expected calibration error of a probability.

    That is the mean distance between a bin's mean probability and its fraction of the outcome, weighted by the bin's
    number of images (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, where it is the probability of
    the predicted class, and the outcome that this class is the true one). For two classes the probability is that of
    the second class, as in Naeini et al., AAAI 2015.

    Args:
        weights: `[b, n]`, how often each image counts.
        probability: `[n]`.
        outcome: `[n]`, 0 or 1.

    Returns:
        `[b]`, from 0 to 1.
    """
    gaps = np.where(_bin_of(probability)[:, None] == np.arange(BINS), (probability - outcome)[:, None], 0.0)
    return safe_divide(np.abs(weights @ gaps).sum(1), weights.sum(1))


def normal_tail(value: Floats, std: Floats, threshold: int) -> Floats:
    """Return the probability `[n]` that a whole number is at least `threshold`, by a normal distribution.

    The formula is that of `NumberTask.tail`.

    Args:
        value: `[n]`, predictions.
        std: `[n]`, standard deviations of their errors; NaN where none is predicted.
        threshold: A whole number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (value - threshold + HALF) / std
    normal = NormalDist()
    return np.array([normal.cdf(each) for each in distance.tolist()], dtype=np.float64)


@dataclass(frozen=True)
class IntervalCalibration:
    """Calibration of predicted standard deviations, over the images that have one.

    Attributes:
        images: Number of images with a predicted standard deviation.
        nominal: `[levels]`, nominal coverage of central intervals of a normal distribution.
        observed: `[levels]`, fraction of true values inside them.
        bin_images: `[bins]`, images in each of up to ten bins of about equal counts, in ascending standard deviation.
        bin_std: `[bins]`, root of the mean predicted variance.
        bin_rmse: `[bins]`, root mean squared error.
    """

    images: int
    nominal: Floats
    observed: Floats
    bin_images: Integers
    bin_std: Floats
    bin_rmse: Floats


def within_interval(errors: Floats, std: Floats, level: float) -> Floats:
    """Return 1 where an error lies inside the central interval of a normal distribution with this `std`, else 0.

    Args:
        errors: `[n]`, absolute.
        std: `[n]`.
        level: Nominal coverage of the interval.
    """
    return (errors <= NormalDist().inv_cdf((1 + level) / 2) * std).astype(np.float64)


def spread(errors: Floats, std: Floats, levels: Sequence[float] = LEVELS) -> IntervalCalibration | None:
    """Compare the predicted standard deviations with the errors.

    Coverage follows Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", ICML 2018;
    the bins follow Levi et al., "Evaluating and Calibrating Uncertainty Prediction in Regression Tasks", Sensors 2022.

    Args:
        errors: `[n]`, absolute.
        std: `[n]`; NaN where none is predicted.
        levels: Nominal coverage of the central intervals.

    Returns:
        None if no image has a predicted standard deviation.
    """
    stated = np.isfinite(std)
    if not stated.any():
        return None
    errors, std = errors[stated], std[stated]
    # Binned by mid-rank: equal values share a bin, and only a constant std leaves a single bin.
    ranks = np.sort(std)
    bin_of = BINS * (np.searchsorted(ranks, std, "left") + np.searchsorted(ranks, std, "right")) // (2 * len(std))
    images = np.bincount(bin_of)
    means = [np.bincount(bin_of, values**2) / np.maximum(images, 1) for values in (std, errors)]
    filled = images > 0
    return IntervalCalibration(
        images=len(std),
        nominal=np.array(levels),
        observed=np.array([within_interval(errors, std, level).mean() for level in levels]),
        bin_images=images[filled].astype(np.int64),
        bin_std=np.sqrt(means[0][filled]),
        bin_rmse=np.sqrt(means[1][filled]),
    )
