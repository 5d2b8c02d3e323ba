"""An exponential moving average (EMA) of the weights: validated, kept and exported, while the run's own train on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from agegender.errors import require


class WeightAverage(WeightAveraging):
    """Lightning's weight averaging, with a decay that warms up, and out of the way once the training has ended.

    Validation measures the average, and a checkpoint's weights are the average's; the run's own weights lie beside
    them for `resume`. Afterwards Lightning's callback would put the run's own weights back when a checkpoint is tested:
    they are not what was validated.
    """

    def __init__(self, decay: float = 0.998):
        """Sets how slowly the average follows: it looks back over about `1 / (1 - decay)` steps.

        Raises:
            AgeGenderError: The decay is not between 0 and 1.
        """
        require(0 <= decay < 1, f"callbacks.averaging.decay={decay} must be at least 0 and below 1")
        super().__init__(avg_fn=warmed_up(decay))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets the average go: the module holds its weights now."""
        self._average_model = None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores both sets of weights in training; anywhere else the average is what was loaded already."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def warmed_up(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Returns how an average moves: by `1 - decay`, and faster at first, so that the random start is soon forgotten.

    The warm-up is that of TensorFlow's ExponentialMovingAverage: no decay above `(1 + n) / (10 + n)` at step n.
    """

    def move(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        count = int(steps)
        return average + (current - average) * (1 - min(decay, (1 + count) / (10 + count)))

    return move
