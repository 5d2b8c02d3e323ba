"""McNemar's exact test: whether two classifiers, tested on the same images, have the same accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test.

    Attributes:
        images: Number of images that both classifiers predicted and whose label is known.
        only_a: b, the number of images that only the first classifier predicts correctly.
        only_b: c, the number of images that only the second classifier predicts correctly.
        p: Probability of counts at least as unequal, in either direction, if both accuracies are equal.
    """

    images: int
    only_a: int
    only_b: int
    p: float


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """Test whether two classifiers differ in accuracy.

    The images on which both are right, or both are wrong, hold no information about the difference. Of the others, a
    half is expected for each classifier if the accuracies are equal: the test is the binomial sign test on them
    (McNemar, Psychometrika 1947; exact form: Fagerland et al., BMC Medical Research Methodology 2013; for classifiers:
    Dietterich, Neural Computation 1998). It assumes independent images.

    Args:
        a: `[n]`, where the first classifier is right.
        b: `[n]`, where the second classifier is right.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(len(a), only_a, only_b, two_sided_sign_test(only_a, only_b))


def two_sided_sign_test(first: int, second: int) -> float:
    """Return the two-sided p-value of two counts that are equally likely to get each case; 1 without any case.

    It is twice the smaller tail of the binomial distribution, at most 1. The tail is summed in logarithms, so that no
    term underflows, whatever the counts.
    """
    cases, fewer = first + second, min(first, second)
    logs = [math.lgamma(cases + 1) - math.lgamma(i + 1) - math.lgamma(cases - i + 1) for i in range(fewer + 1)]
    tail = math.fsum(math.exp(each - logs[-1]) for each in logs)  # the last term is the largest
    return min(1.0, 2 * math.exp(logs[-1] - cases * math.log(2) + math.log(tail)))
