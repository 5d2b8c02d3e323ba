"""Calibration of numbers: standard deviations, intervals and the values that a checkpoint may hold."""

from __future__ import annotations

from dataclasses import asdict, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.tasks.intervals import COVERAGE, STEPS, IntervalCalibration

ENDS = STEPS + 1
PLAIN = IntervalCalibration([10.0, 30.0, 70.0], [1.0, 2.0, 4.0], [-1.0] * ENDS, [1.0] * ENDS, [0.0, 120.0])


def test_calibrated_std_is_interpolated_and_constant_beyond_the_knots() -> None:
    years = torch.tensor([0.0, 10, 20, 30, 50, 70, 100])
    assert PLAIN.std_of(years, torch.ones(7)).tolist() == [1, 1, 1.5, 2, 3, 4, 4]
    assert PLAIN.std_of(years, torch.full((7,), 2.0)).tolist() == [2, 2, 3, 4, 6, 8, 8]
    assert replace(PLAIN, values=[5.0], std=[3.0]).std_of(years, torch.ones(7)).tolist() == [3] * 7


def test_interval_holds_the_ages_consistent_with_the_prediction() -> None:
    low, high = PLAIN.interval(torch.tensor([30.0, 30.4, 0.5, 119.9]), torch.tensor([25.0, 25.0, 9.0, 9.0]))
    assert low.tolist() == [25, 26, 0, 117] and high.tolist() == [35, 35, 3, 120]


def test_interval_of_other_limits_has_its_ends_among_121_evenly_spaced_values() -> None:
    calibration = replace(PLAIN, low=[-0.5] * ENDS, high=[0.5] * ENDS, limits=[-3.0, 3.0])  # steps of 0.05
    low, high = calibration.interval(torch.tensor([0.02, -2.9, 5.0]), torch.ones(3))
    assert low.tolist() == pytest.approx([-0.45, -3.0, 3.0], abs=1e-5)  # 5 is beyond the limits: the nearest value
    assert high.tolist() == pytest.approx([0.5, -2.4, 3.0], abs=1e-5)


def test_interval_is_asymmetric_where_errors_are() -> None:
    # faces of 60 and more are answered 10 to 20 years too young, all others within 2 years
    high = [2.0] * 60 + [20.0] * 61
    low = [-2.0] * 60 + [10.0] * 61
    calibration = replace(PLAIN, low=low, high=high)
    ends = calibration.interval(torch.tensor([30.0, 55.0]), torch.ones(2))
    assert [end.tolist() for end in ends] == [[28, 53], [32, 75]]


@given(
    years=st.floats(0, 130),
    stated=st.floats(1e-3, 200),
    seed=st.integers(0, 10_000),
)
def test_interval_is_never_empty_nor_outside_the_age_range(years: float, stated: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.normal(0, 10 ** rng.uniform(-2, 2), (ENDS, 2)), 1)
    calibration = replace(PLAIN, low=ends[:, 0].tolist(), high=ends[:, 1].tolist())
    low, high = calibration.interval(torch.tensor([years]), torch.tensor([stated]))
    assert 0 <= low.item() <= high.item() <= 120
    assert low.item() == round(low.item()) and high.item() == round(high.item())


def test_interval_covers_the_nominal_fraction_of_normal_errors() -> None:
    truth = np.random.default_rng(0).normal(50, 8, 20_000)
    end = NormalDist(0, 8).inv_cdf((1 + COVERAGE) / 2)
    low, high = replace(PLAIN, low=[-end] * ENDS, high=[end] * ENDS).interval(torch.tensor([50.0]), torch.ones(1))
    inside = ((truth >= low.item() - 0.5) & (truth <= high.item() + 0.5)).mean()  # ages in whole years
    assert inside == pytest.approx(COVERAGE, abs=0.03)


def test_interval_calibration_round_trips_through_plain_values() -> None:
    assert IntervalCalibration.from_dict(asdict(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": [0.0]},
        {"values": []},
        {"std": [1.0, 2.0]},
        {"surplus": 1.0},
        {"high": None},
        {"high": [None] * ENDS},
        {"limits": [0.0]},
        {"limits": ["0", "120"]},
    ],
)
def test_interval_calibration_of_invalid_values_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(AgeGenderError, match="calibration is invalid"):
        IntervalCalibration.from_dict(asdict(PLAIN) | wrong)
