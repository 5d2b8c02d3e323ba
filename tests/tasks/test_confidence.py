"""Calibrated class probabilities: temperature, the confidence below which a class is unsure, and saved values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.tasks.confidence import ANSWERED_RIGHT, ClassCalibration, fit_confidence, min_confidence, temperature

PLAIN = ClassCalibration(1.5, 0.6, 0.9)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [1, 4])
def test_temperature_recovers_the_true_value(classes: int, true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, classes))
    if classes == 1:
        labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits[:, 0]))).astype(float)
    else:
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(1).astype(float)  # drawn from the softmax
    assert temperature(logits * true, labels) == pytest.approx(true, rel=0.05)


@settings(max_examples=60)
@given(count=st.integers(1, 40), classes=st.integers(1, 5), seed=st.integers(0, 1000), scale=st.floats(0, 1000))
def test_fit_confidence_is_a_valid_calibration_for_few_faces(count: int, classes: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(count, classes))
    found = fit_confidence(logits, rng.integers(0, max(2, classes), count).astype(float))
    assert ClassCalibration.from_dict(asdict(found)) == found and 0 < found.answered <= 1
    assert found.min_confidence >= 1 / max(2, classes)


def test_two_classes_have_equal_calibrations_as_one_logit_and_as_two() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500).astype(float)
    logits = 3 * (labels - 0.5) + rng.normal(size=500)
    one = fit_confidence(logits[:, None], labels)
    two = fit_confidence(np.stack((np.zeros(500), logits), 1), labels)
    assert tuple(vars(one).values()) == pytest.approx(tuple(vars(two).values()))


@settings(deadline=None)
@given(count=st.integers(1, 400), seed=st.integers(0, 1000), skill=st.floats(0, 8))
def test_min_confidence_is_the_lowest_that_reaches_the_target_accuracy(count: int, seed: int, skill: float) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    second = 1 / (1 + np.exp(-skill * (2 * label - 1 + rng.normal(size=count))))
    confidence, right = np.maximum(second, 1 - second), (second > 0.5) == label
    threshold, answered = min_confidence(confidence, right)
    chosen = confidence >= threshold
    assert chosen.mean() == pytest.approx(answered) and chosen.sum() >= min(50, count)
    levels = [level for level in np.unique(confidence) if (confidence >= level).sum() >= min(50, count)]
    reached = [level for level in levels if right[confidence >= level].mean() >= ANSWERED_RIGHT]
    if reached:
        assert right[chosen].mean() >= ANSWERED_RIGHT and threshold <= reached[0]
    else:
        assert right[chosen].mean() == pytest.approx(max(right[confidence >= level].mean() for level in levels))


def test_min_confidence_is_chance_at_full_accuracy() -> None:
    assert min_confidence(np.array([0.9, 0.8, 0.6]), np.ones(3, dtype=bool)) == (0.5, 1.0)
    assert min_confidence(np.array([0.9, 0.8, 0.4]), np.ones(3, dtype=bool), chance=0.2) == (0.2, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "warm"},
        {"temperature": 0.0},
        {"answered": None},
        {"surplus": 1.0},
        *({"min_confidence": value} for value in (-0.01, 1.01, float("nan"), "high", None)),
    ],
)
def test_class_calibration_of_invalid_values_is_refused(wrong: dict[str, Any]) -> None:
    assert ClassCalibration.from_dict(asdict(PLAIN)) == PLAIN
    with pytest.raises(AgeGenderError, match="calibration is invalid"):
        ClassCalibration.from_dict(asdict(PLAIN) | wrong)
