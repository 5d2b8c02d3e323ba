"""Calibrated class probabilities, and the confidence below which a class is `unsure`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.errors import AgeGenderError

Floats = NDArray[np.float64]

ANSWERED_RIGHT = 0.97  # target accuracy of the classes that are not `unsure`
_FEWEST = 50  # minimum number of faces for an accuracy, if there are as many


@dataclass(frozen=True)
class ClassCalibration:
    """Calibrated uncertainty of a classification, fitted on the validation faces.

    Attributes:
        temperature: Divides the logits (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
        min_confidence: Probability of the likeliest class below which the class is `unsure`.
        answered: Fraction of the validation faces whose class is not `unsure`.
    """

    temperature: float
    min_confidence: float
    answered: float

    @classmethod
    def from_dict(cls, saved: Any) -> ClassCalibration:
        """Build a calibration from a checkpoint's plain values.

        Raises:
            AgeGenderError: The values are not a calibration.
        """
        try:
            calibration = cls(**saved)
            valid = all(isinstance(value, float) for value in vars(calibration).values())
            valid = valid and calibration.temperature > 0 and 0 <= calibration.min_confidence <= 1
        except TypeError:
            valid = False
        if not valid:
            raise AgeGenderError("the checkpoint's calibration is invalid: it is damaged, or of another version")
        return calibration


def fit_confidence(logits: Floats, labels: Floats) -> ClassCalibration:
    """Fit a calibration to faces that the network was not trained on.

    Args:
        logits: `[n, classes]`, or `[n, 1]` for the logit of the second of two classes; n at least 1.
        labels: `[n]`, positions of the true classes.
    """
    divisor = temperature(logits, labels)
    if logits.shape[1] == 1:
        with np.errstate(over="ignore"):  # infinity gives the right probability, 0
            second = 1 / (1 + np.exp(-logits[:, 0] / divisor))
        confidence, predicted = np.maximum(second, 1 - second), second > 0.5
    else:
        probabilities = np.exp(_log_softmax(logits / divisor))
        confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    chance = 1 / max(2, logits.shape[1])
    return ClassCalibration(divisor, *min_confidence(confidence, predicted == labels, chance))


def min_confidence(confidence: Floats, correct: NDArray[np.bool_], chance: float = 0.5) -> tuple[float, float]:
    """Return the lowest confidence threshold with an accuracy of at least `ANSWERED_RIGHT` above it.

    This is selective classification (Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS
    2017), with the softmax response.

    Args:
        confidence: `[n]`, probability of the predicted class, n at least 1.
        correct: `[n]`, whether it is the true class.
        chance: Lowest possible confidence, the threshold if all faces are answered.

    Returns:
        The threshold, and the fraction of faces above it (the coverage). If no threshold reaches the target, it is the
        one with the highest accuracy among those with at least `_FEWEST` faces above.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    accuracy = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last_of_level = np.append(ranked[1:] < ranked[:-1], True)  # equal confidences stay together
    allowed = last_of_level & (np.arange(1, len(order) + 1) >= min(_FEWEST, len(order)))
    enough = np.flatnonzero(allowed & (accuracy >= ANSWERED_RIGHT))
    last = int(enough[-1]) if len(enough) else int(np.argmax(np.where(allowed, accuracy, -1)))
    if last == len(order) - 1:
        return chance, 1.0
    return float(ranked[last]), (last + 1) / len(order)


def temperature(logits: Floats, labels: Floats) -> float:
    """Return the temperature of the logits that minimizes the cross-entropy (Guo et al., ICML 2017).

    Args:
        logits: See `fit_confidence`.
        labels: See `fit_confidence`.

    Returns:
        A value from 0.05 to 20; unbounded, the minimum would lie at zero if all predictions are correct.
    """

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if scaled.shape[1] == 1:
            return float((np.logaddexp(0, scaled[:, 0]) - labels * scaled[:, 0]).mean())
        return -float(_log_softmax(scaled)[np.arange(len(labels)), labels.astype(int)].mean())

    return float(np.exp(_lowest(cross_entropy, -3.0, 3.0)))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimizer of a unimodal function by golden-section search (Kiefer 1953)."""
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) <= function(right):
            high = right
        else:
            low = left
    return (low + high) / 2
