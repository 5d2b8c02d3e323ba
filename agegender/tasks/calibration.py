"""Calibration of a network's uncertainty, fitted on the validation faces and stored in checkpoints as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agegender.errors import AgeGenderError

MAX_AGE = 120  # years; an interval's ends are whole years from 0 to here
COVERAGE = 0.8  # nominal coverage of the age intervals


@dataclass(frozen=True)
class Calibration:
    """Calibrated uncertainty of ages and genders, fitted on the validation faces (see `training/fit_calibration.py`).

    The four sequences are empty if no validation face has an age.

    Attributes:
        temperature: Divides the gender's logit (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
        ages: `[knots]`, predicted ages in years, ascending, at which `std` is given; it is interpolated in between.
        std: `[knots]`, factor of the predicted spread (of one year, if the coding predicts none).
        low: `[MAX_AGE + 1]`, the 10 % quantile of the errors of faces of each true age. An error is true minus
            predicted age, divided by the square root of the predicted spread, which made the errors more alike than
            division by the spread.
        high: `[MAX_AGE + 1]`, the 90 % quantile, likewise.
        min_confidence: Probability of the likelier gender below which the gender is `unsure`, from 0.5 to 1.
        answered: Fraction of the validation faces whose gender is not `unsure`.
    """

    temperature: float
    ages: Sequence[float]
    std: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    min_confidence: float = 0.5
    answered: float = 1.0

    @property
    def has_age(self) -> bool:
        """Whether ages are calibrated."""
        return bool(self.ages)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Calibration:
        """Build a calibration from a checkpoint's plain values.

        Raises:
            AgeGenderError: The values are not a calibration.
        """
        try:
            calibration = cls(**saved)
            length = MAX_AGE + 1 if calibration.has_age else 0
            valid = len(calibration.ages) == len(calibration.std)
            valid = valid and len(calibration.low) == len(calibration.high) == length
            valid = valid and 0.5 <= calibration.min_confidence <= 1
            numbers = (value for values in vars(calibration).values() for value in _list(values))
            valid = valid and all(isinstance(value, float) for value in numbers)
        except TypeError:
            valid = False
        if not valid:
            raise AgeGenderError("the checkpoint's calibration is invalid: it is damaged, or of another version")
        return calibration

    def predicted_std(self, years: Tensor, stated: Tensor) -> Tensor:
        """Return the standard deviation of the age errors `[batch]` in years.

        Args:
            years: `[batch]`, predicted ages.
            stated: `[batch]`, predicted spreads in years; ones if the coding predicts none.
        """
        knots, factors = years.new_tensor(list(self.ages)), years.new_tensor(list(self.std))
        if len(knots) == 1:
            return stated * factors
        # the first knot not below the prediction: ONNX has no `searchsorted`
        after = (knots < years.unsqueeze(1)).sum(1).clamp(1, len(knots) - 1)
        width = knots[after] - knots[after - 1]
        weight = ((years - knots[after - 1]) / width).clamp(0, 1)
        return stated * torch.lerp(factors[after - 1], factors[after], weight)

    def interval(self, years: Tensor, stated: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the age interval, each `[batch]` in whole years.

        The interval spans the ages for which the prediction's error lies between their quantiles: label-conditional
        conformal prediction (Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012), here
        conditional on a neighborhood of ages. Its coverage is therefore the same at every age, not only on average.
        """
        ages = torch.arange(MAX_AGE + 1, dtype=years.dtype, device=years.device)
        errors = (ages - years.unsqueeze(1)) / stated.sqrt().unsqueeze(1)
        low, high = years.new_tensor(list(self.low)), years.new_tensor(list(self.high))
        outside = torch.maximum(low - errors, errors - high)  # distance; at most 0 inside
        # if no age fits, take the nearest
        fits = outside <= outside.amin(1, keepdim=True).clamp(min=0)
        return ages[fits.int().argmax(1)], ages[MAX_AGE - fits.flip(1).int().argmax(1)]


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]
