"""Ages as one number: the mean absolute, the mean squared and Huber's error."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from agegender.errors import require
from agegender.models.age_coding import Coding


class _Regression(Coding):
    """One output: the age in units of `scale` years, counted from `offset`.

    The scale keeps the two tasks level: with the spread of UTKFace's ages (19.9 years) as unit, always answering the
    mean age costs about 0.8 (absolute) or 1.0 (squared), and always answering even odds for gender costs ln 2 = 0.69.
    The outputs state no spread of their own: the network's is that of its errors on the validation faces.
    """

    def __init__(self, scale: float = 20.0, offset: float = 33.0, output: Literal["linear", "relu"] = "linear"):
        """Sets the unit.

        Args:
            scale: Years per unit of output; 1 for a loss in years.
            offset: Age in years that an output of zero means, so that a new network starts at the mean age.
            output: `linear`, or `relu`: a ReLU in training too, which no age below zero leaves. Counted from `offset`,
                it starts in its working range (a ReLU that starts below zero for all faces never learns).

        Raises:
            AgeGenderError: The scale is not above zero.
        """
        require(scale > 0, f"age.scale={scale} must be above zero")
        self.scale, self.offset, self.relu = scale, offset, output == "relu"

    def decode(self, raw: Tensor) -> Tensor:
        """Maps outputs `[batch, 1]` to ages `[batch]` in years, not below zero."""
        return (raw[:, 0] * self.scale + self.offset).clamp(min=0)

    def spread(self, raw: Tensor) -> Tensor | None:
        """Returns None: one number says nothing about its error."""
        return None

    def _answer(self, raw: Tensor) -> Tensor:
        return raw[:, 0].clamp(min=-self.offset / self.scale) if self.relu else raw[:, 0]

    def _target(self, age: Tensor) -> Tensor:
        return (age - self.offset) / self.scale


class MeanAbsoluteError(_Regression):
    """Regression by mean absolute error (L1): learns the median of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean absolute error in units of `scale` years."""
        return functional.l1_loss(self._answer(raw), self._target(age))


class MeanSquaredError(_Regression):
    """Regression by mean squared error (L2): learns the mean of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean squared error in units of `scale` years, squared."""
        return functional.mse_loss(self._answer(raw), self._target(age))


class Huber(_Regression):
    """Regression by Huber's loss: squared for small errors, absolute for large ones.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964; divided by `delta`
    (PyTorch's `smooth_l1_loss`), so that a year more of a far error costs as much as in `MeanAbsoluteError`.
    """

    def __init__(
        self,
        scale: float = 20.0,
        offset: float = 33.0,
        output: Literal["linear", "relu"] = "linear",
        delta: float = 5.0,
    ):
        """Sets the unit, see `_Regression`, and the error in years (`delta`) from which the loss is absolute.

        Raises:
            AgeGenderError: The scale or `delta` is not above zero.
        """
        super().__init__(scale, offset, output)
        require(delta > 0, f"age.delta={delta} must be above zero")
        self.delta = delta

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean loss in units of `scale` years."""
        return functional.smooth_l1_loss(self._answer(raw), self._target(age), beta=self.delta / self.scale)
