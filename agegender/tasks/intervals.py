"""Calibrated standard deviations and prediction intervals of numbers, stored in checkpoints as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agegender.errors import AgeGenderError

STEPS = 120  # number of steps between an interval's possible ends: whole years from 0 to 120
COVERAGE = 0.8  # nominal coverage of the intervals


@dataclass(frozen=True)
class IntervalCalibration:
    """Calibrated uncertainty of a number, fitted on the validation faces (see `fit_intervals`).

    Attributes:
        values: `[knots]`, predictions, ascending, at which `std` is given; it is interpolated in between.
        std: `[knots]`, factor of the predicted spread (of one unit, if the task predicts none).
        low: `[STEPS + 1]`, the 10 % quantile of the errors of faces around each possible true value. An error is true
            minus predicted value, divided by the square root of the predicted spread, which made the errors more alike
            than division by the spread.
        high: `[STEPS + 1]`, the 90 % quantile, likewise.
        limits: The lowest and the highest of the evenly spaced possible values.
    """

    values: Sequence[float]
    std: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    limits: Sequence[float]

    @classmethod
    def from_dict(cls, saved: Any) -> IntervalCalibration:
        """Build a calibration from a checkpoint's plain values.

        Raises:
            AgeGenderError: The values are not a calibration.
        """
        try:
            calibration = cls(**saved)
            valid = len(calibration.values) == len(calibration.std) > 0 and len(calibration.limits) == 2
            valid = valid and len(calibration.low) == len(calibration.high) == STEPS + 1
            valid = valid and all(isinstance(each, float) for values in vars(calibration).values() for each in values)
        except TypeError:
            valid = False
        if not valid:
            raise AgeGenderError("the checkpoint's calibration is invalid: it is damaged, or of another version")
        return calibration

    def std_of(self, value: Tensor, spread: Tensor) -> Tensor:
        """Return the standard deviation of the errors `[batch]`.

        Args:
            value: `[batch]`, predictions.
            spread: `[batch]`, predicted spreads; ones if the task predicts none.
        """
        knots, factors = value.new_tensor(list(self.values)), value.new_tensor(list(self.std))
        if len(knots) == 1:
            return spread * factors
        # the first knot not below the prediction: ONNX has no `searchsorted`
        after = (knots < value.unsqueeze(1)).sum(1).clamp(1, len(knots) - 1)
        width = knots[after] - knots[after - 1]
        weight = ((value - knots[after - 1]) / width).clamp(0, 1)
        return spread * torch.lerp(factors[after - 1], factors[after], weight)

    def interval(self, value: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the interval, each `[batch]`, among the evenly spaced possible values.

        The interval spans the values for which the prediction's error lies between their quantiles: label-conditional
        conformal prediction (Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012), here
        conditional on a neighborhood of values. Its coverage is therefore the same at every age, not only on average.
        """
        start, stop = self.limits
        possible = torch.arange(STEPS + 1, dtype=value.dtype, device=value.device) * ((stop - start) / STEPS) + start
        errors = (possible - value.unsqueeze(1)) / spread.sqrt().unsqueeze(1)
        low, high = value.new_tensor(list(self.low)), value.new_tensor(list(self.high))
        outside = torch.maximum(low - errors, errors - high)  # distance; at most 0 inside
        # if no value fits, take the nearest
        fits = outside <= outside.amin(1, keepdim=True).clamp(min=0)
        return possible[fits.int().argmax(1)], possible[STEPS - fits.flip(1).int().argmax(1)]
