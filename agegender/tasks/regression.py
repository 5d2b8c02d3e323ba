"""A number as one output: regression by the mean absolute error, the mean squared error or the Huber loss."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from agegender.errors import require
from agegender.tasks.number import NumberTask
from agegender.tasks.task import Floats


class Regression(NumberTask):
    """One output: the value in units of `scale`, relative to `offset`.

    The scale balances the tasks: in units of the standard deviation of the labels, the constant prediction of the mean
    has a loss of about 0.8 (absolute) or 1.0 (squared), and even odds for two classes have ln 2 = 0.69. The output
    implies no spread: calibration takes it from the errors on the validation faces.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        label: str,
        weight: float = 1.0,
        loss: Literal["mae", "mse", "huber"] = "mae",
        scale: float | None = None,
        offset: float | None = None,
        output: Literal["linear", "relu"] = "linear",
        delta: float = 5.0,
        **number: Any,
    ):
        """Set the loss, the unit of the output and its offset.

        Args:
            label: See `Task`.
            weight: See `Task`.
            loss: `mae` learns the median of the plausible values, `mse` their mean. `huber` is squared for errors below
                `delta` and absolute above: Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical
                Statistics 1964; divided by `delta` (PyTorch's `smooth_l1_loss`), so that its slope for large errors is
                that of `mae`.
            scale: Value of one unit of output; 1 for a loss in the label's unit, None for the standard deviation of the
                training labels.
            offset: Value at an output of zero; None for the mean of the training labels.
            output: `linear`, or `relu`: in training too, values are clamped from below at the lower limit. Relative to
                `offset`, the ReLU starts in its active range (one that starts inactive for all faces never learns).
            delta: See `loss`, in the label's unit.
            **number: See `NumberTask`; predictions are clamped at the limits.

        Raises:
            AgeGenderError: A value is out of range.
        """
        super().__init__(label, weight, **number)
        require(scale is None or scale > 0, f"scale={scale} must be above zero, or null for the labels' own")
        require(delta > 0, f"delta={delta} must be above zero")
        bounded = output == "linear" or self.limits is not None
        require(bounded, "output=relu needs limits, the lower of which it clamps at")
        self.loss_name, self.delta, self.relu = loss, delta, output == "relu"
        self._from_labels = scale is None, offset is None
        self.register_buffer("scale", torch.tensor(1.0 if scale is None else float(scale)))
        self.register_buffer("offset", torch.tensor(0.0 if offset is None else float(offset)))

    def prepare(self, labels: Floats) -> None:
        """Set the scale and the offset that were not given, from the training labels `[n]`."""
        scale, offset = self._from_labels
        if offset and len(labels):
            self.offset.fill_(float(labels.mean()))
        if scale and len(labels):
            self.scale.fill_(float(labels.std()) or 1.0)

    def value(self, raw: Tensor) -> Tensor:
        """Map outputs `[batch, 1]` to values `[batch]` within the limits."""
        value = raw[:, 0] * self.scale + self.offset
        return value if self.limits is None else value.clamp(*self.limits)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the losses `[batch]` in units of `scale`."""
        output = raw[:, 0]
        if self.relu and self.limits is not None:
            output = output.clamp(min=(self.limits[0] - self.offset) / self.scale)
        target = (target - self.offset) / self.scale
        if self.loss_name == "mae":
            return functional.l1_loss(output, target, reduction="none")
        if self.loss_name == "mse":
            return functional.mse_loss(output, target, reduction="none")
        # PyTorch takes beta as a number of the host; losses in units of delta are the same ones
        unit = self.delta / self.scale
        return functional.smooth_l1_loss(output / unit, target / unit, reduction="none") * unit
