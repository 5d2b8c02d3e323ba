"""Mean, standard deviation and Student's t interval."""

from __future__ import annotations

import math

import pytest

from agegender.evaluation.statistics.student import Spread, spread_of, t_quantile


# The table of the t distribution in any textbook; Cauchy's distribution (1) and 2 degrees have closed forms.
@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 4, 2.7764),
        (0.975, 5, 2.5706),
        (0.975, 9, 2.2622),
        (0.975, 10, 2.2281),
        (0.975, 29, 2.0452),
        (0.975, 120, 1.9799),
        (0.95, 4, 2.1318),
        (0.995, 7, 3.4995),
    ],
)
def test_t_quantile_is_that_of_the_table(probability: float, degrees: int, expected: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9995])
def test_t_quantile_has_the_closed_forms_of_one_and_two_degrees(probability: float) -> None:
    assert t_quantile(probability, 1) == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-9)
    alpha = 4 * probability * (1 - probability)
    assert t_quantile(probability, 2) == pytest.approx((2 * probability - 1) * math.sqrt(2 / alpha), rel=1e-9)


def test_spread_has_the_mean_deviation_and_interval_computed_by_hand() -> None:
    found = spread_of([4.0, 5.0, 9.0])  # mean 6, squares 4 + 1 + 9, sd sqrt(14 / 2), half 4.302653 * sd / sqrt(3)
    assert (found.mean, found.jobs) == (6.0, 3)
    assert found.sd == pytest.approx(math.sqrt(7))
    assert found.low == pytest.approx(6 - 6.572414, abs=1e-5) and found.high == pytest.approx(6 + 6.572414, abs=1e-5)


def test_spread_of_one_value_has_no_deviation() -> None:
    assert spread_of([4.5]) == Spread(4.5, None, None, None, 1)
