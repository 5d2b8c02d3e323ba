"""Does the model know how sure it may be? Counted from `p_female` and from the stated spread of the ages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from agegender.evaluation.measures import Floats, Integers, divide

BINS = 10
LEVELS = tuple(level / 10 for level in range(1, 10))


@dataclass(frozen=True)
class Reliability:
    """What share of the images with about the same `p_female` is female.

    Attributes:
        low: `[bins]`, where each bin begins; the last ends at 1.
        images: `[bins]`, how many fall into it.
        p_female: `[bins]`, their mean; NaN in an empty bin.
        female: `[bins]`, the share that is female; NaN in an empty bin.
    """

    low: Floats
    images: Integers
    p_female: Floats
    female: Floats


def _bin_of(p_female: Floats) -> Integers:
    return np.minimum((p_female * BINS).astype(np.int64), BINS - 1)


def reliability(p_female: Floats, gender: Integers) -> Reliability:
    """Counts the reliability diagram: ten bins of equal width, each with its beginning, the last with its end too."""
    images = np.bincount(_bin_of(p_female), minlength=BINS).astype(np.int64)
    sums = [np.bincount(_bin_of(p_female), values, BINS) for values in (p_female, gender)]
    means, shares = (divide(total.astype(np.float64), images.astype(np.float64)) for total in sums)
    return Reliability(np.arange(BINS) / BINS, images, means, shares)


def weighted_ece(weights: Floats, p_female: Floats, gender: Integers) -> Floats:
    """Returns the expected calibration error of `p_female`.

    That is the mean distance between a bin's mean `p_female` and its share of female images, the bins weighted by
    their images (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; of the probability of one class,
    as in Naeini et al., AAAI 2015, where Guo et al. take that of the answer).

    Args:
        weights: `[b, n]`, how often each image counts.
        p_female: `[n]`.
        gender: `[n]`, 0 = male, 1 = female.

    Returns:
        `[b]`, from 0 to 1.
    """
    gaps = np.where(_bin_of(p_female)[:, None] == np.arange(BINS), (p_female - gender)[:, None], 0.0)
    return divide(np.abs(weights @ gaps).sum(1), weights.sum(1))


@dataclass(frozen=True)
class Spread:
    """Does the stated standard deviation of the ages fit the errors? Over the images for which one is stated.

    Attributes:
        images: How many there are.
        nominal: `[levels]`, the shares that central intervals of a normal distribution promise to hold.
        observed: `[levels]`, the shares of true ages that they do hold.
        bin_images: `[bins]`, images in each of up to ten bins of about equally many, from small spreads to large.
        bin_std: `[bins]`, the root of their mean stated variance, years.
        bin_rmse: `[bins]`, the root of their mean squared error, years.
    """

    images: int
    nominal: Floats
    observed: Floats
    bin_images: Integers
    bin_std: Floats
    bin_rmse: Floats


def covered(errors: Floats, std: Floats, level: float) -> Floats:
    """Tells (1 or 0) which errors the central interval of a normal distribution with this spread holds.

    Args:
        errors: `[n]`, absolute, years.
        std: `[n]`, years.
        level: The share that the interval promises to hold.
    """
    return (errors <= NormalDist().inv_cdf((1 + level) / 2) * std).astype(np.float64)


def spread(errors: Floats, std: Floats, levels: Sequence[float] = LEVELS) -> Spread | None:
    """Compares the stated spread of the ages with their errors.

    Coverage follows Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression", ICML 2018;
    the bins Levi et al., "Evaluating and Calibrating Uncertainty Prediction in Regression Tasks", Sensors 2022.

    Args:
        errors: `[n]`, absolute, years.
        std: `[n]`, years; NaN where none is stated.
        levels: The shares that the central intervals promise to hold.

    Returns:
        None if no spread is stated.
    """
    stated = np.isfinite(std)
    if not stated.any():
        return None
    errors, std = errors[stated], std[stated]
    # By the middle of its ranks, so that equal spreads share a bin, and only a spread equal for all fills a single one.
    ranks = np.sort(std)
    place = BINS * (np.searchsorted(ranks, std, "left") + np.searchsorted(ranks, std, "right")) // (2 * len(std))
    images = np.bincount(place)
    means = [np.bincount(place, values**2) / np.maximum(images, 1) for values in (std, errors)]
    filled = images > 0
    return Spread(
        images=len(std),
        nominal=np.array(levels),
        observed=np.array([covered(errors, std, level).mean() for level in levels]),
        bin_images=images[filled].astype(np.int64),
        bin_std=np.sqrt(means[0][filled]),
        bin_rmse=np.sqrt(means[1][filled]),
    )
