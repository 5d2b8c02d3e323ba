"""An exponential moving average (EMA) of the weights, which is validated, saved and exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from agegender.errors import require


class EMA(WeightAveraging):
    """Lightning's WeightAveraging with a decay warm-up, disabled after the training.

    Validation uses the average, and a checkpoint's `state_dict` holds the average; the current weights are saved beside
    it for `resume`. After the training, Lightning's callback would restore the current weights when a checkpoint is
    tested, which are not those that were validated.
    """

    def __init__(self, decay: float = 0.998):
        """Set the decay; the average spans about `1 / (1 - decay)` steps.

        Raises:
            AgeGenderError: `decay` is not in [0, 1).
        """
        require(0 <= decay < 1, f"callbacks.ema.decay={decay} must be at least 0 and below 1")
        super().__init__(avg_fn=ema_with_warmup(decay))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average, with the calibration of the current validation: the averaged copy has none."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        current = checkpoint.get("current_model_state", {})
        checkpoint["state_dict"] |= {key: state for key, state in current.items() if key.endswith("_extra_state")}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the averaged copy; the module already holds its weights."""
        self._average_model = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both sets of weights in training; elsewhere the loaded `state_dict` is the average already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def ema_with_warmup(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the update function of an EMA with a warm-up, which soon discounts the initial weights.

    The warm-up is that of TensorFlow's ExponentialMovingAverage: the decay at step n is at most `(1 + n) / (10 + n)`.
    """

    def move(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        count = int(steps)
        return average + (current - average) * (1 - min(decay, (1 + count) / (10 + count)))

    return move
