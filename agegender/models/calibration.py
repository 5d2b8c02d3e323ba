"""What validation taught about how far a network's answers can be trusted: plain numbers, which checkpoints carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agegender.errors import AgeGenderError

OLDEST = 120  # years; an interval's ends are whole years from 0 to here
HELD = 0.8  # share of the true ages that an interval is to hold


@dataclass(frozen=True)
class Calibration:
    """Turns a network's stated certainty into one that held on the validation faces (see `training/calibrating.py`).

    All but the temperature are empty if no validation face had an age.

    Attributes:
        temperature: Divides the gender's logit (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
        ages: `[knots]`, answers in years, rising, at which `std` is known; between them it is interpolated.
        std: `[knots]`, factor of the stated spread; of one year, where a coding states none.
        low: `[OLDEST + 1]`, for faces of each true age: what a tenth of their errors lie below. An error is true minus
            predicted age, over the root of the stated spread: that was nearer to alike for all than over the spread.
        high: `[OLDEST + 1]`, likewise: what a tenth lie above.
        min_confidence: The probability of the likelier gender below which it is no answer, from 0.5 to 1.
        answered: Share of the validation faces that got an answer so.
    """

    temperature: float
    ages: Sequence[float]
    std: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    min_confidence: float = 0.5
    answered: float = 1.0

    @property
    def of_ages(self) -> bool:
        """Whether it says anything about ages."""
        return bool(self.ages)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> Calibration:
        """Builds one from a checkpoint's plain values.

        Raises:
            AgeGenderError: They are not a calibration.
        """
        try:
            made = cls(**saved)
            ends = OLDEST + 1 if made.of_ages else 0
            fits = len(made.ages) == len(made.std) and len(made.low) == len(made.high) == ends
            fits = fits and 0.5 <= made.min_confidence <= 1
            fits = fits and all(isinstance(value, float) for values in vars(made).values() for value in _list(values))
        except TypeError:
            fits = False
        if not fits:
            raise AgeGenderError(
                "the checkpoint's calibration is not one of ours: it is damaged, or of another version"
            )
        return made

    def error(self, years: Tensor, stated: Tensor) -> Tensor:
        """Returns the standard deviation of the answers' errors `[batch]` in years.

        Args:
            years: `[batch]`, the answers.
            stated: `[batch]`, the stated spread; ones where a coding states none.
        """
        knots, factors = years.new_tensor(list(self.ages)), years.new_tensor(list(self.std))
        if len(knots) == 1:
            return stated * factors
        # the first knot not below the answer: ONNX has no `searchsorted`
        after = (knots < years.unsqueeze(1)).sum(1).clamp(1, len(knots) - 1)
        width = knots[after] - knots[after - 1]
        share = ((years - knots[after - 1]) / width).clamp(0, 1)
        return stated * torch.lerp(factors[after - 1], factors[after], share)

    def interval(self, years: Tensor, stated: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the youngest and the oldest age `[batch]`, in whole years, that fit the answers.

        An age fits if faces of that age were answered like this often enough: conformal prediction conditional on the
        label (Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012), here on a neighbourhood of
        ages. So the interval holds the true age as often for the old as for the young, not only on average.
        """
        ages = torch.arange(OLDEST + 1, dtype=years.dtype, device=years.device)
        errors = (ages - years.unsqueeze(1)) / stated.sqrt().unsqueeze(1)
        low, high = years.new_tensor(list(self.low)), years.new_tensor(list(self.high))
        outside = torch.maximum(low - errors, errors - high)  # how far; at most 0 inside
        # an answer that no age fits gets the nearest one
        fits = outside <= outside.amin(1, keepdim=True).clamp(min=0)
        return ages[fits.int().argmax(1)], ages[OLDEST - fits.flip(1).int().argmax(1)]


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]
