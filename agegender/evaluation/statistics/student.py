"""Mean, standard deviation and Student's t interval of a few values, such as the scores of repeated trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from agegender.evaluation.statistics.bootstrap import CONFIDENCE

METHOD = "Student's t: mean +- t(0.975, n - 1) * sd / sqrt(n) over n jobs; sd is the sample's, with n - 1"


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and 95 % interval of the mean of n values; None where a single value has none."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    jobs: int


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean, sample standard deviation (n - 1) and Student's t interval of the mean, which assumes normality.

    Args:
        values: At least one finite value.
    """
    count, mean = len(values), statistics.fmean(values)
    if count < 2:
        return Spread(mean, None, None, None, count)
    sd = statistics.stdev(values)
    half = t_quantile(0.5 + CONFIDENCE / 2, count - 1) * sd / math.sqrt(count)
    return Spread(mean, sd, mean - half, mean + half, count)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution, to about 12 digits.

    Args:
        probability: Between 0.5 and 1, both excluded.
        degrees: Degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2  # the angle atan(t / sqrt(degrees)), in which the probability is smooth and bounded
    for _ in range(60):
        middle = (low + high) / 2
        inside = _probability_within(middle, degrees)
        low, high = (middle, high) if (1 + inside) / 2 < probability else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _probability_within(angle: float, degrees: int) -> float:
    """Return P(|T| < t) for t = tan(angle) * sqrt(degrees).

    Exact for whole degrees of freedom (Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4).
    """
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees, 2):
        term *= math.cos(angle) ** 2 * (k - 1) / k
        total += term
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
