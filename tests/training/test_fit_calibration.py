"""The fit of the calibration recovers true parameters and generalizes to new faces."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.tasks.calibration import COVERAGE, Calibration
from agegender.training.fit_calibration import ANSWERED_RIGHT, fit_calibration, min_confidence, temperature


def drawn(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Returns labels distributed as UTKFace's, with predictions that shrink to the mean and err more with age."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(count) < 0.15, rng.integers(0, 10, count), rng.integers(10, 91, count)).astype(float)
    stated = (1 + age / 10) * rng.uniform(0.7, 1.3, count)
    answers = np.clip(age - 0.25 * (age - 35) * (age > 5) + 1.6 * stated * rng.normal(size=count), 0, None)
    gender = rng.integers(0, 2, count).astype(float)
    return answers, stated, 3 * rng.logistic(size=count) + 6 * (2 * gender - 1), age, gender


def test_intervals_cover_the_nominal_fraction_of_new_faces_at_every_age() -> None:
    calibration = fit_calibration(*drawn(1800, 0))
    assert calibration is not None
    answers, stated, _, age, _ = drawn(50_000, 1)
    ends = calibration.interval(torch.from_numpy(answers), torch.from_numpy(stated))
    low, high = (end.numpy() for end in ends)
    inside = (low <= age) & (age <= high)
    assert inside.mean() == pytest.approx(COVERAGE, abs=0.04)
    for start in range(10, 90, 20):
        band = (age >= start) & (age < start + 20)
        assert inside[band].mean() == pytest.approx(COVERAGE, abs=0.07), start
    assert inside[age < 3].mean() >= COVERAGE - 0.05  # whole years are coarse for a spread of one


def test_predicted_std_matches_the_error_on_new_faces() -> None:
    calibration = fit_calibration(*drawn(1800, 0))
    assert calibration is not None
    answers, stated, _, age, _ = drawn(50_000, 1)
    error = calibration.predicted_std(torch.from_numpy(answers), torch.from_numpy(stated)).numpy()
    for low, high in ((10, 30), (30, 50), (50, 80)):
        alike = (answers >= low) & (answers < high)
        found = np.sqrt(((age - answers)[alike] ** 2).mean())
        assert np.sqrt((error[alike] ** 2).mean()) == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_recovers_the_true_value(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    gender = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature(logits * true, gender) == pytest.approx(true, rel=0.05)


def test_fit_calibration_returns_none_for_non_finite_predictions() -> None:
    answers, stated, logits, age, gender = drawn(50, 0)
    answers[3] = np.nan
    assert fit_calibration(answers, stated, logits, age, gender) is None


def test_fit_calibration_ignores_missing_labels() -> None:
    answers, stated, logits, age, gender = drawn(500, 0)
    age[300:400] = gender[400:] = np.nan
    found, ages, genders = fit_calibration(answers, stated, logits, age, gender), ~np.isnan(age), ~np.isnan(gender)
    assert found is not None
    of_ages = fit_calibration(answers[ages], stated[ages], logits[ages], age[ages], np.zeros(400))
    of_genders = {name: getattr(found, name) for name in ("temperature", "min_confidence", "answered")}
    assert of_ages is not None and replace(of_ages, **of_genders) == found
    assert found.temperature == temperature(logits[genders], gender[genders])


def test_fit_calibration_leaves_an_unlabeled_task_uncalibrated() -> None:
    answers, stated, logits, age, gender = drawn(50, 0)
    none = np.full(50, np.nan)
    without_genders = fit_calibration(answers, stated, logits, age, none)
    assert without_genders is not None and without_genders.temperature == 1.0 and without_genders.has_age
    without_ages = fit_calibration(answers, stated, logits, none, gender)
    assert without_ages is not None and not without_ages.has_age
    assert without_ages.temperature == temperature(logits, gender)
    assert Calibration.from_dict(asdict(without_ages)) == without_ages


@settings(max_examples=60)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000), same=st.booleans())
def test_fit_calibration_is_finite_for_few_faces(count: int, seed: int, same: bool) -> None:
    answers, stated, logits, age, gender = drawn(count, seed)
    if same:
        answers[:], stated[:], logits[:] = 30.0, 0.0, 1000.0
    calibration = fit_calibration(answers, stated, logits, age, gender)
    assert calibration is not None
    assert all(np.isfinite(values).all() for values in vars(calibration).values())
    low, high = calibration.interval(torch.from_numpy(answers), torch.from_numpy(np.maximum(stated, 1e-3)))
    assert (low <= high).all()


def test_intervals_fitted_with_corrupted_faces_cover_those_too() -> None:
    clean, corrupted = drawn(1800, 0), np.column_stack(drawn(1800, 2))
    corrupted[:, 0] += 4 * np.random.default_rng(3).normal(size=len(corrupted))  # larger errors
    shares = []
    for known in (None, corrupted):
        answers, stated, logits, age, gender = clean
        calibration = fit_calibration(answers, stated, logits, age, gender, known)
        assert calibration is not None
        ends = calibration.interval(torch.from_numpy(corrupted[:, 0]), torch.from_numpy(corrupted[:, 1]))
        low, high = (end.numpy() for end in ends)
        shares.append(((low <= corrupted[:, 3]) & (corrupted[:, 3] <= high)).mean())
    assert shares[0] < COVERAGE - 0.04 < shares[1]


@settings(deadline=None)
@given(count=st.integers(1, 400), seed=st.integers(0, 1000), skill=st.floats(0, 8))
def test_min_confidence_is_the_lowest_that_reaches_the_target_accuracy(count: int, seed: int, skill: float) -> None:
    rng = np.random.default_rng(seed)
    gender = rng.integers(0, 2, count).astype(float)
    p_female = 1 / (1 + np.exp(-skill * (2 * gender - 1 + rng.normal(size=count))))
    threshold, answered = min_confidence(p_female, gender)
    confidence, right = np.maximum(p_female, 1 - p_female), (p_female > 0.5) == gender
    chosen = confidence >= threshold
    assert chosen.mean() == pytest.approx(answered) and chosen.sum() >= min(50, count)
    levels = [level for level in np.unique(confidence) if (confidence >= level).sum() >= min(50, count)]
    reached = [level for level in levels if right[confidence >= level].mean() >= ANSWERED_RIGHT]
    if reached:
        assert right[chosen].mean() >= ANSWERED_RIGHT and threshold <= reached[0]
    else:
        assert right[chosen].mean() == pytest.approx(max(right[confidence >= level].mean() for level in levels))


def test_min_confidence_is_one_half_at_full_accuracy_or_without_labels() -> None:
    assert min_confidence(np.array([0.9, 0.2, 0.6]), np.array([1.0, 0.0, 1.0])) == (0.5, 1.0)
    columns = list(drawn(100, 0))
    columns[4] = np.full(100, np.nan)
    calibration = fit_calibration(*columns)
    assert calibration is not None and (calibration.min_confidence, calibration.answered) == (0.5, 1.0)
