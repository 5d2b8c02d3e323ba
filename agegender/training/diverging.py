"""Stops a training whose loss or weights are no numbers any more, before it writes such weights anywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from agegender.data.dataset import Batch
from agegender.data.index import FaceIndex
from agegender.errors import DivergedError

SHOWN = 4  # files of a batch that a line names; all of them are in the file beside the checkpoints


class _Step(NamedTuple):
    epoch: int
    step: int
    rate: float
    loss: Tensor
    rows: Tensor


class StopWhenDiverged(Callback):
    """Ends the run with the step, the learning rate and the batch's files; what was saved before stays the last.

    On a CPU, every step's loss is looked at. To look at one on a GPU is to wait for it, so there the losses are set
    aside as they are, and looked at every `trainer.log_every_n_steps` steps, when Lightning waits for them anyway, and
    before a checkpoint is written. So are those of several processes, which must stop together. Whenever it is noticed,
    the first step that was no number is the one named. Weights are looked at before each checkpoint.
    """

    def __init__(self, index: FaceIndex, report: Path):
        """Says whose faces the batches hold, and where the batch's files are listed."""
        self.index, self.report = index, report
        self._unseen: list[_Step] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Sets the step's loss aside, and looks if it is time."""
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._unseen.append(_Step(trainer.current_epoch, trainer.global_step, rate, outputs["loss"], batch["row"]))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.looks_at_each(trainer, pl_module) or (batch_idx + 1) % max(1, every) == 0:
            self._look(trainer)

    @staticmethod
    def looks_at_each(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Tells whether a loss can be looked at without waiting, for a device or for other processes."""
        return pl_module.device.type == "cpu" and trainer.world_size == 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at what an epoch's end left unseen; a validation of such weights would say nothing."""
        self._look(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Looks at the losses and the weights before any of them reaches the disk.

        Raises:
            DivergedError: One is no number.
        """
        self._look(trainer)
        with torch.no_grad():
            sums = [weight.detach().float().sum() for weight in pl_module.parameters()]
            finite = all(math.isfinite(value) for value in torch.stack(sums).tolist())
        if self._any(trainer, not finite):
            raise DivergedError(
                f"the training diverged: after step {trainer.global_step} (epoch {trainer.current_epoch + 1}) the "
                "weights are no numbers any more, and were not saved"
            )

    def _look(self, trainer: pl.Trainer) -> None:
        steps, self._unseen = self._unseen, []
        losses = torch.stack([step.loss.detach() for step in steps]).tolist() if steps else []
        bad = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if not self._any(trainer, bad is not None):
            return
        if bad is None:
            raise DivergedError("the training diverged in another process, which says where")
        epoch, step, rate, _, rows = steps[bad]
        files = [self.index.names[row] for row in rows.tolist()]
        self._list(files)
        shown = ", ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
        raise DivergedError(
            f"the training diverged: the loss of step {step} (epoch {epoch + 1}) is {losses[bad]}, at learning rate "
            f"{rate:g}, with the faces {shown}; all {len(files)} are listed in {self.report}"
        )

    def _list(self, files: list[str]) -> None:
        text = "".join(f"{self.index.folder / name}\n" for name in files)
        self.report.write_text(text, encoding="utf-8", errors="surrogateescape")

    @staticmethod
    def _any(trainer: pl.Trainer, here: bool) -> bool:
        """Tells whether it is so in any of the processes that train together: they stop together."""
        if trainer.world_size == 1:
            return here
        anywhere: bool = trainer.strategy.reduce_boolean_decision(here, all=False)
        return anywhere
