"""Averages of the weights that are validated, saved, tested and resumed."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging


class ValidatedAverage(WeightAveraging):
    """Lightning's WeightAveraging for models with a calibration, disabled after the training.

    Validation uses the average, and a checkpoint's `state_dict` holds the average; the current weights are saved beside
    it for `resume`. After the training, Lightning's callback would restore the current weights when a checkpoint is
    tested, which are not those that were validated.
    """

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
