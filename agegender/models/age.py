"""How an age becomes the network's target, a loss, and an answer in years again."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from agegender.errors import require


class AgeCoding(Protocol):
    """What the network and the training step need of a coding.

    Attributes:
        outputs: Width of the age head.
    """

    outputs: int

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean loss (a scalar) of the head's outputs `[batch, outputs]` for ages `[batch]` in years."""
        ...

    def decode(self, raw: Tensor) -> Tensor:
        """Maps the head's outputs `[batch, outputs]` to ages `[batch]` in years."""
        ...


class _Regression:
    """One output: the age in units of `scale` years, counted from `offset`.

    The scale keeps the two tasks level: with the spread of UTKFace's ages (19.9 years) as unit, always answering the
    mean age costs about 0.8 (absolute) or 1.0 (squared), and always answering even odds for gender costs ln 2 = 0.69.
    """

    outputs = 1

    def __init__(self, scale: float = 20.0, offset: float = 33.0):
        """Sets the unit.

        Args:
            scale: Years per unit of output.
            offset: Age in years that an output of zero means, so that a new network starts at the mean age.

        Raises:
            AgeGenderError: The scale is not above zero.
        """
        require(scale > 0, f"age.scale={scale} must be above zero")
        self.scale, self.offset = scale, offset

    def decode(self, raw: Tensor) -> Tensor:
        """Maps outputs `[batch, 1]` to ages `[batch]` in years, not below zero."""
        return (raw[:, 0] * self.scale + self.offset).clamp(min=0)

    def _target(self, age: Tensor) -> Tensor:
        return (age - self.offset) / self.scale


class MeanAbsoluteError(_Regression):
    """Regression by mean absolute error (L1): learns the median of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean absolute error in units of `scale` years."""
        return functional.l1_loss(raw[:, 0], self._target(age))


class MeanSquaredError(_Regression):
    """Regression by mean squared error (L2): learns the mean of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean squared error in units of `scale` years, squared."""
        return functional.mse_loss(raw[:, 0], self._target(age))


AGE_CODINGS: dict[str, type[AgeCoding]] = {"mae": MeanAbsoluteError, "mse": MeanSquaredError}
