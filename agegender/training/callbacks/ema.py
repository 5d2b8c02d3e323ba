"""An exponential moving average (EMA) of the weights, which is validated, saved and exported."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from agegender.errors import require
from agegender.training.callbacks.weight_averaging import ValidatedAverage


class EMA(ValidatedAverage):
    """An average of the weights that discounts older ones, with a decay warm-up."""

    def __init__(self, decay: float = 0.998):
        """Set the decay; the average spans about `1 / (1 - decay)` steps.

        Raises:
            AgeGenderError: `decay` is not in [0, 1).
        """
        require(0 <= decay < 1, f"callbacks.ema.decay={decay} must be at least 0 and below 1")
        super().__init__(avg_fn=ema_with_warmup(decay))


def ema_with_warmup(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the update function of an EMA with a warm-up, which soon discounts the initial weights.

    The warm-up is that of TensorFlow's ExponentialMovingAverage: the decay at step n is at most `(1 + n) / (10 + n)`.
    """

    def move(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        count = int(steps)
        return average + (current - average) * (1 - min(decay, (1 + count) / (10 + count)))

    return move
