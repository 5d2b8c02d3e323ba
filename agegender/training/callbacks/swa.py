"""Stochastic weight averaging (SWA): the mean of the weights of the last epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from agegender.distributed.collectives import all_reduce_sum
from agegender.errors import require
from agegender.training.callbacks.weight_averaging import ValidatedAverage

PART = 32  # faces per batch


class SWA(ValidatedAverage):
    """The equal average of the weights at the ends of the last epochs; before them, the current weights.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018. Lightning's
    StochasticWeightAveraging validates and saves the current weights until the training has ended, so `best.ckpt`
    would not hold the average; here each validation sees it.

    The statistics of batch norm are computed anew for the averaged weights, as in the paper, from augmented training
    faces, evenly spaced in the training split.
    """

    def __init__(self, start: float = 0.75, batch_norm_faces: int = 1024):
        """Set the beginning of the average.

        Args:
            start: Fraction of `trainer.max_epochs` before the first epoch that counts; 0.75 in the paper.
            batch_norm_faces: Largest number of faces from which the statistics of batch norm are computed.

        Raises:
            AgeGenderError: A value is out of range.
        """
        require(0 <= start < 1, f"callbacks.swa.start={start} must be at least 0 and below 1")
        fits = batch_norm_faces >= PART
        require(fits, f"callbacks.swa.batch_norm_faces={batch_norm_faces} must be at least {PART}")
        super().__init__(avg_fn=self._average)
        self.start, self.batch_norm_faces = start, batch_norm_faces
        self.epochs = 0  # averaged so far
        self._epoch_counted = False  # this step ends an epoch that counts

    def _average(self, average: Tensor, current: Tensor, updates: Tensor) -> Tensor:
        return average + (current - average) / (self.epochs + 1) if self.epochs else current

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to update: until the first epoch that counts, the average follows the current weights."""
        return step_idx is not None and (self.epochs == 0 or self._epoch_counted)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the training has a length, and faces that can be looked up if there is batch norm.

        Raises:
            AgeGenderError: `trainer.max_epochs` is not set, or the faces come in a stream.
        """
        known = (trainer.max_epochs or 0) > 0
        require(known, "callbacks=swa averages the last of trainer.max_epochs: set it, or use callbacks=ema")
        streamed = trainer.datamodule.streamed  # type: ignore[attr-defined]
        require(
            not (streamed and self._norms(pl_module)),
            "callbacks=swa computes the statistics of batch norm from single training faces, which a stream can't look "
            "up: with data=streaming, use callbacks=ema",
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; at an epoch's end before the validation, which Lightning runs ahead of its hook."""
        begun = self.epochs > 0 or trainer.current_epoch >= int(self.start * (trainer.max_epochs or 0))
        self._epoch_counted = begun and trainer.is_last_batch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._epoch_counted:
            self.epochs += 1
            if self.epochs > 1 and (norms := self._norms(pl_module)):
                self._update_batch_norm(norms, trainer, pl_module.device)

    def _norms(self, pl_module: pl.LightningModule) -> list[_BatchNorm]:
        """Return the averaged copies of the batch norms that are trained and keep statistics."""
        assert self._average_model is not None
        pairs = zip(pl_module.modules(), self._average_model.module.modules(), strict=True)
        return [
            average
            for own, average in pairs
            if isinstance(average, _BatchNorm) and own.training and average.track_running_stats
        ]

    @torch.no_grad()
    def _update_batch_norm(self, norms: list[_BatchNorm], trainer: pl.Trainer, device: torch.device) -> None:
        """Compute the statistics of the averaged weights, as the mean over batches and ranks."""
        assert self._average_model is not None
        network: Any = self._average_model.module.network
        momenta = [norm.momentum for norm in norms]
        network.eval()  # no dropout
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        with trainer.precision_plugin.forward_context():
            for images in self._images(trainer, device):
                network(images.contiguous(memory_format=torch.channels_last))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            for statistics in (norm.running_mean, norm.running_var):
                assert statistics is not None
                statistics.copy_(all_reduce_sum(statistics) / trainer.world_size)

    def _images(self, trainer: pl.Trainer, device: torch.device) -> Iterator[Tensor]:
        """Yield this rank's batches of augmented training images, the same after a resume."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        faces = data.split("train")
        step = -(-len(faces) // self.batch_norm_faces)
        chosen = torch.arange(0, len(faces), step)
        chosen = chosen.tensor_split(trainer.world_size)[trainer.global_rank]
        for items in chosen.tensor_split(max(1, len(chosen) // PART)):
            batch = data.transfer_batch_to_device(faces.__getitems__(items), device, 0)
            yield data.on_after_batch_transfer(batch, 0)["image"]

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state, and the number of epochs averaged so far."""
        return {**super().state_dict(), "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of `state_dict`."""
        super().load_state_dict(state_dict)
        self.epochs = state_dict["epochs"]
