"""Gaps between groups of images: age-standardized metrics, and intervals of the largest difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agegender.evaluation.statistics.bootstrap import CONFIDENCE, Estimate
from agegender.evaluation.statistics.metrics import Floats


@dataclass(frozen=True)
class Gap:
    """The largest difference between groups.

    Attributes:
        highest: Position of the group with the highest value.
        lowest: Position of the group with the lowest value.
        difference: Highest minus lowest value. The interval holds for all pairs of groups at once, so it also holds
            for this pair, which is chosen by its difference; it contains 0 if the groups may be equal.
    """

    highest: int
    lowest: int
    difference: Estimate


def standardize(by_band: Floats, faces: Floats) -> Floats:
    """Return directly standardized metrics: the mean over the age bands, weighted by a common age distribution.

    Differences between groups with different ages mix the effect of age with that of the group. Direct standardization
    removes the former: each group is given the same ages (Keiding and Clayton, "Standardization and Control for
    Confounding in Observational Studies: A Historical Perspective", Statistical Science 2014).

    Args:
        by_band: `[..., bands]`, metric of each age band.
        faces: `[bands]`, number of images of each band in the common distribution.

    Returns:
        `[...]`.
    """
    return np.asarray(by_band @ (faces / faces.sum()), dtype=np.float64)


def largest_gap(values: Floats, samples: Floats) -> Gap:
    """Return the largest difference between groups, with a simultaneous bootstrap interval.

    The largest of several differences is large by chance too: its percentile interval is biased upward, and never
    contains 0. Instead, the interval's half-width is the 95 % quantile of the largest deviation of any pair's
    difference from its value, in units of the pair's standard error (the max-t bootstrap; Romano and Wolf, "Exact and
    Approximate Stepdown Methods for Multiple Hypothesis Testing", JASA 2005).

    Args:
        values: `[k]`, metric of each of at least two groups.
        samples: `[resamples, k]`, the same in each resample; resamples with an undefined value (NaN) are left out.
    """
    order = np.argsort(values, kind="stable")  # two positions, even if all values are equal
    highest, lowest = int(order[-1]), int(order[0])
    gap = float(values[highest] - values[lowest])
    samples = samples[np.isfinite(samples).all(1)]
    if not len(samples):
        return Gap(highest, lowest, Estimate(gap, float("nan"), float("nan")))
    first, second = np.triu_indices(len(values), 1)
    apart = (samples[:, first] - samples[:, second]) - (values[first] - values[second])
    errors = apart.std(0)
    scaled = np.abs(apart) / np.where(errors > 0, errors, 1.0)
    half = float(np.quantile(scaled.max(1), CONFIDENCE) * (samples[:, highest] - samples[:, lowest]).std())
    return Gap(highest, lowest, Estimate(gap, gap - half, gap + half))
