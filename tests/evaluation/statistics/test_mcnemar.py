"""McNemar's exact test against hand-computed and exactly summed binomial tails."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agegender.evaluation.statistics.mcnemar import mcnemar, two_sided_sign_test


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1),  # no image distinguishes the classifiers
        (3, 3, 1),
        (1, 5, 2 * (1 + 6) / 2**6),
        (5, 1, 2 * (1 + 6) / 2**6),
        (0, 10, 2 / 2**10),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
    ],
)
def test_sign_test_matches_hand_computation(first: int, second: int, p: float) -> None:
    assert two_sided_sign_test(first, second) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 600), st.integers(0, 600))
def test_sign_test_equals_the_exact_sum(first: int, second: int) -> None:
    tail = sum(math.comb(first + second, i) for i in range(min(first, second) + 1))
    exact = float(min(Fraction(1), Fraction(2 * tail, 2 ** (first + second))))
    assert two_sided_sign_test(first, second) == pytest.approx(exact, rel=1e-9)


def test_sign_test_of_large_counts_approaches_the_normal_distribution() -> None:
    z = (4_000 - 1) / math.sqrt(1_004_000)  # with the correction for continuity
    assert two_sided_sign_test(500_000, 504_000) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_mcnemar_counts_images_that_one_classifier_predicts_correctly() -> None:
    a = np.array([True, True, False, False, True, False, False, False])
    b = np.array([True, False, True, True, True, False, True, True])
    found = mcnemar(a, b)
    assert (found.images, found.only_a, found.only_b) == (8, 1, 4)
    assert found.p == pytest.approx(2 * (1 + 5) / 2**5)
