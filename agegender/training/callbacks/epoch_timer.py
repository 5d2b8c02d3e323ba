"""Seconds per epoch and images per second."""

from __future__ import annotations

import statistics
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from agegender.data.loading.dataset import Batch
from agegender.distributed.collectives import all_reduce_sum


class EpochTimer(Callback):
    """Measure seconds per epoch, validation included, and training images per second, validation excluded.

    Its state is saved in checkpoints, so that a resumed run includes all its epochs.
    """

    def __init__(self) -> None:
        """Initialize without measurements."""
        self.epochs: list[float] = []
        self.rates: list[float] = []
        self._start: float | None = None  # stays None in an epoch that was resumed midway
        self._validating, self._images = 0.0, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start, self._validating, self._images = time.perf_counter(), 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's images."""
        self._images += len(batch["row"]) if batch.get("weight") != 0 else 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the validation's clock."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the validation's clock."""
        self._validating += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the epoch's clock."""
        if self._start is None:
            return
        elapsed = time.perf_counter() - self._start
        images = int(all_reduce_sum(torch.tensor(self._images, device=pl_module.device)))
        self.epochs.append(elapsed)
        self.rates.append(images / (elapsed - self._validating))

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements."""
        return {"epochs": self.epochs, "rates": self.rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements."""
        self.epochs, self.rates = list(state_dict["epochs"]), list(state_dict["rates"])

    def summary(self) -> dict[str, float]:
        """Return the medians and the total over the measured epochs; empty without any."""
        if not self.epochs:
            return {}
        return {
            "seconds_per_epoch": round(statistics.median(self.epochs), 3),
            "images_per_second": round(statistics.median(self.rates), 1),
            "train_seconds": round(sum(self.epochs), 1),
        }
