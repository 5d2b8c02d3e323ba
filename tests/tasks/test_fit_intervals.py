"""The fit of a number's intervals and standard deviations generalizes to new faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.nodes import age_task
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.tasks.fit_intervals import fit_intervals
from agegender.tasks.intervals import COVERAGE, IntervalCalibration
from agegender.tasks.regression import Regression

YEARS = (0.0, 120.0)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns predictions that shrink to the mean and err more with age, spreads, and ages as UTKFace's."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(count) < 0.15, rng.integers(0, 10, count), rng.integers(10, 91, count)).astype(float)
    stated = (1 + age / 10) * rng.uniform(0.7, 1.3, count)
    answers = np.clip(age - 0.25 * (age - 35) * (age > 5) + 1.6 * stated * rng.normal(size=count), 0, None)
    return answers, stated, age


def inside(calibration: IntervalCalibration, value: np.ndarray, spread: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns whether each label lies in its interval."""
    ends = calibration.interval(torch.from_numpy(value), torch.from_numpy(spread))
    low, high = (end.numpy() for end in ends)
    return (low <= label) & (label <= high)


def test_intervals_cover_the_nominal_fraction_of_new_faces_at_every_age() -> None:
    calibration, new = fit_intervals(*drawn(1800, 0), YEARS), drawn(50_000, 1)
    found, age = inside(calibration, *new), new[2]
    assert found.mean() == pytest.approx(COVERAGE, abs=0.04)
    for start in range(10, 90, 20):
        band = (age >= start) & (age < start + 20)
        assert found[band].mean() == pytest.approx(COVERAGE, abs=0.07), start
    assert found[age < 3].mean() >= COVERAGE - 0.05  # whole years are coarse for a spread of one


@pytest.mark.parametrize(("unit", "start"), [(1e-3, -5.0), (1000.0, 0.0)])
def test_intervals_do_not_depend_on_the_unit(unit: float, start: float) -> None:
    value, spread, age = drawn(1800, 0)
    years = fit_intervals(value, spread, age, YEARS)
    other = fit_intervals(unit * value + start, unit * spread, unit * age + start, [start, 120 * unit + start])
    assert np.allclose(other.std, years.std)
    assert np.allclose(other.low, np.sqrt(unit) * np.array(years.low), atol=1e-6 * np.sqrt(unit))
    assert np.allclose(other.high, np.sqrt(unit) * np.array(years.high), atol=1e-6 * np.sqrt(unit))


def test_calibrated_std_matches_the_error_on_new_faces() -> None:
    calibration, (answers, stated, age) = fit_intervals(*drawn(1800, 0), YEARS), drawn(50_000, 1)
    error = calibration.std_of(torch.from_numpy(answers), torch.from_numpy(stated)).numpy()
    for low, high in ((10, 30), (30, 50), (50, 80)):
        alike = (answers >= low) & (answers < high)
        found = np.sqrt(((age - answers)[alike] ** 2).mean())
        assert np.sqrt((error[alike] ** 2).mean()) == pytest.approx(found, rel=0.2)


@settings(max_examples=60)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000), same=st.booleans())
def test_fit_intervals_is_finite_for_few_faces(count: int, seed: int, same: bool) -> None:
    answers, stated, age = drawn(count, seed)
    if same:
        answers[:], stated[:] = 30.0, 0.0
    calibration = fit_intervals(answers, stated, age, YEARS)
    assert all(np.isfinite(values).all() for values in vars(calibration).values())
    low, high = calibration.interval(torch.from_numpy(answers), torch.from_numpy(np.maximum(stated, 1e-3)))
    assert (low <= high).all()


def test_intervals_fitted_with_corrupted_faces_cover_those_too() -> None:
    clean, corrupted, task = drawn(1800, 0), drawn(1800, 0), age_task("mae")
    corrupted[0][:] += 4 * np.random.default_rng(3).normal(size=1800)  # larger errors
    inputs, noisy = np.stack(clean[:2], 1), np.stack(corrupted[:2], 1)
    fractions = []
    for other in (inputs, noisy):
        task.fit_calibration(inputs, clean[2], other)
        assert task.calibration is not None
        fractions.append(inside(task.calibration, *corrupted).mean())
    assert fractions[0] + 0.03 < fractions[1] and fractions[1] > COVERAGE - 0.06


def test_number_is_uncalibrated_for_non_finite_predictions_or_without_labels() -> None:
    task, (answers, stated, age) = age_task("dldl"), drawn(50, 0)
    inputs = np.stack((answers, stated), 1)
    diverged = inputs.copy()
    diverged[3, 0] = np.nan
    for value, label in ((diverged, age), (inputs, np.full(50, np.nan))):
        task.fit_calibration(inputs, age, inputs)
        assert task.calibration is not None
        task.fit_calibration(value, label, inputs)
        assert task.calibration is None


def test_number_calibration_ignores_missing_labels_and_non_finite_corrupted_faces() -> None:
    task, (answers, stated, age) = age_task("dldl"), drawn(500, 0)
    inputs = np.stack((answers, stated), 1)
    task.fit_calibration(inputs[:400], age[:400], inputs[:400])
    known = task.calibration
    age[400:] = np.nan
    task.fit_calibration(inputs, age, inputs)
    assert known is not None and task.calibration == known
    task.fit_calibration(inputs[:400], age[:400], np.full((400, 2), np.nan))
    assert task.calibration == fit_intervals(answers[:400], stated[:400], age[:400], YEARS)


def test_number_without_limits_takes_them_from_the_labels() -> None:
    task, (answers, stated, age) = Regression("weight"), drawn(300, 0)
    task.fit_calibration(np.stack((answers, stated), 1), age, np.stack((answers, stated), 1))
    assert task.calibration is not None and list(task.calibration.limits) == pytest.approx([age.min(), age.max()])
    low, high = task.calibration.interval(torch.tensor([-1e3, 1e3]), torch.ones(2))
    assert [low[0].item(), high[1].item()] == pytest.approx([age.min(), age.max()], abs=1e-4)
    task.fit_calibration(np.ones((4, 2)), np.full(4, 7.0), np.ones((4, 2)))  # a single value
    assert task.calibration.limits[0] == 7.0 < task.calibration.limits[1]
