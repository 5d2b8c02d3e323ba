"""The fit of the calibration: it finds what was put in, and holds on faces that it was not fitted to."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.models.calibration import HELD, Calibration
from agegender.training.calibrating import fit_calibration, temperature


def drawn(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Ages as UTKFace has them, answered with errors that grow with age and lean towards the middle."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(count) < 0.15, rng.integers(0, 10, count), rng.integers(10, 91, count)).astype(float)
    stated = (1 + age / 10) * rng.uniform(0.7, 1.3, count)
    answers = np.clip(age - 0.25 * (age - 35) * (age > 5) + 1.6 * stated * rng.normal(size=count), 0, None)
    gender = rng.integers(0, 2, count).astype(float)
    return answers, stated, 3 * rng.logistic(size=count) + 6 * (2 * gender - 1), age, gender


def test_intervals_hold_their_share_of_new_faces_at_every_age() -> None:
    calibration = fit_calibration(*drawn(1800, 0))
    assert calibration is not None
    answers, stated, _, age, _ = drawn(50_000, 1)
    ends = calibration.interval(torch.from_numpy(answers), torch.from_numpy(stated))
    low, high = (end.numpy() for end in ends)
    inside = (low <= age) & (age <= high)
    assert inside.mean() == pytest.approx(HELD, abs=0.04)
    for start in range(10, 90, 20):
        band = (age >= start) & (age < start + 20)
        assert inside[band].mean() == pytest.approx(HELD, abs=0.07), start
    assert inside[age < 3].mean() >= HELD - 0.05  # whole years are coarse for a spread of one


def test_the_stated_error_is_that_of_new_faces_with_such_an_answer() -> None:
    calibration = fit_calibration(*drawn(1800, 0))
    assert calibration is not None
    answers, stated, _, age, _ = drawn(50_000, 1)
    error = calibration.error(torch.from_numpy(answers), torch.from_numpy(stated)).numpy()
    for low, high in ((10, 30), (30, 50), (50, 80)):
        alike = (answers >= low) & (answers < high)
        found = np.sqrt(((age - answers)[alike] ** 2).mean())
        assert np.sqrt((error[alike] ** 2).mean()) == pytest.approx(found, rel=0.2)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    gender = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature(logits * true, gender) == pytest.approx(true, rel=0.05)


def test_a_network_that_has_diverged_gets_none() -> None:
    answers, stated, logits, age, gender = drawn(50, 0)
    answers[3] = np.nan
    assert fit_calibration(answers, stated, logits, age, gender) is None


def test_labels_that_are_not_known_change_nothing() -> None:
    answers, stated, logits, age, gender = drawn(500, 0)
    age[300:400] = gender[400:] = np.nan
    found, ages, genders = fit_calibration(answers, stated, logits, age, gender), ~np.isnan(age), ~np.isnan(gender)
    assert found is not None
    of_ages = fit_calibration(answers[ages], stated[ages], logits[ages], age[ages], np.zeros(400))
    assert of_ages is not None and replace(of_ages, temperature=found.temperature) == found
    assert found.temperature == temperature(logits[genders], gender[genders])


def test_of_what_no_face_has_a_label_nothing_is_said() -> None:
    answers, stated, logits, age, gender = drawn(50, 0)
    none = np.full(50, np.nan)
    without_genders = fit_calibration(answers, stated, logits, age, none)
    assert without_genders is not None and without_genders.temperature == 1.0 and without_genders.of_ages
    without_ages = fit_calibration(answers, stated, logits, none, gender)
    assert without_ages is not None and not without_ages.of_ages
    assert without_ages.temperature == temperature(logits, gender)
    assert Calibration.read(asdict(without_ages)) == without_ages


@settings(max_examples=60)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000), same=st.booleans())
def test_however_few_faces_there_are_the_calibration_is_finite(count: int, seed: int, same: bool) -> None:
    answers, stated, logits, age, gender = drawn(count, seed)
    if same:
        answers[:], stated[:], logits[:] = 30.0, 0.0, 1000.0
    calibration = fit_calibration(answers, stated, logits, age, gender)
    assert calibration is not None
    assert all(np.isfinite(values).all() for values in vars(calibration).values())
    low, high = calibration.interval(torch.from_numpy(answers), torch.from_numpy(np.maximum(stated, 1e-3)))
    assert (low <= high).all()
