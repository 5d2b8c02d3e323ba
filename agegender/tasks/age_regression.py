"""Ages as one number: regression by the mean absolute error, the mean squared error and the Huber loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from agegender.errors import require
from agegender.tasks.age_coding import Coding


class _Regression(Coding):
    """One output: the age in units of `scale` years, relative to `offset`.

    The scale balances the two tasks: in units of the standard deviation of UTKFace's ages (19.9 years), the constant
    prediction of the mean age has a loss of about 0.8 (absolute) or 1.0 (squared), and even odds for gender have
    ln 2 = 0.69. The output implies no spread: calibration takes it from the errors on the validation faces.
    """

    def __init__(self, scale: float = 20.0, offset: float = 33.0, output: Literal["linear", "relu"] = "linear"):
        """Set the unit and the offset.

        Args:
            scale: Years per unit of output; 1 for a loss in years.
            offset: Age in years at an output of zero, so that a new network starts near the mean age.
            output: `linear`, or `relu`: in training too, ages are clamped at zero from below. Relative to `offset`,
                the ReLU starts in its active range (one that starts below zero for all faces never learns).

        Raises:
            AgeGenderError: `scale` is not above zero.
        """
        require(scale > 0, f"age.scale={scale} must be above zero")
        self.scale, self.offset, self.relu = scale, offset, output == "relu"

    def decode(self, raw: Tensor) -> Tensor:
        """Map outputs `[batch, 1]` to ages `[batch]` in years, not below zero."""
        return (raw[:, 0] * self.scale + self.offset).clamp(min=0)

    def spread(self, raw: Tensor) -> Tensor | None:
        """Return None: one output implies no spread."""
        return None

    def _prediction(self, raw: Tensor) -> Tensor:
        return raw[:, 0].clamp(min=-self.offset / self.scale) if self.relu else raw[:, 0]

    def _target(self, age: Tensor) -> Tensor:
        return (age - self.offset) / self.scale


class L1Age(_Regression):
    """Regression by mean absolute error (L1): learns the median of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the mean absolute error in units of `scale` years."""
        return functional.l1_loss(self._prediction(raw), self._target(age))


class MSEAge(_Regression):
    """Regression by mean squared error (L2): learns the mean of the plausible ages."""

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the mean squared error in units of `scale` years, squared."""
        return functional.mse_loss(self._prediction(raw), self._target(age))


class HuberAge(_Regression):
    """Regression by the Huber loss: squared for small errors, absolute for large ones.

    Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 1964; divided by `delta`
    (PyTorch's `smooth_l1_loss`), so that the slope for large errors is that of `L1Age`.
    """

    def __init__(
        self,
        scale: float = 20.0,
        offset: float = 33.0,
        output: Literal["linear", "relu"] = "linear",
        delta: float = 5.0,
    ):
        """Set the unit (see `_Regression`) and `delta`, the error in years from which the loss is absolute.

        Raises:
            AgeGenderError: `scale` or `delta` is not above zero.
        """
        super().__init__(scale, offset, output)
        require(delta > 0, f"age.delta={delta} must be above zero")
        self.delta = delta

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the mean loss in units of `scale` years."""
        return functional.smooth_l1_loss(self._prediction(raw), self._target(age), beta=self.delta / self.scale)
