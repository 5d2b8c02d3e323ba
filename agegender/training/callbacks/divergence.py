"""Stop a training whose loss or weights are not finite, before such weights are saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from agegender.data.index.index import FaceIndex
from agegender.data.loading.dataset import Batch
from agegender.distributed.collectives import first_not_none
from agegender.errors import DivergedError
from agegender.system.files import raise_write_errors

SHOWN = 4  # files of a batch that the message names; all of them are listed in the report file


class _Step(NamedTuple):
    epoch: int
    step: int
    rate: float
    loss: Tensor
    rows: Tensor


class StopOnNonFinite(Callback):
    """Stop a diverged run with an error that names the step, the learning rate and the batch's files.

    On a CPU, every step's loss is checked. On a GPU that would synchronize, so the losses are collected, and checked
    every `trainer.log_every_n_steps` steps, when Lightning synchronizes anyway, and before a checkpoint is written. The
    same holds for several processes, which must stop together. The error names the first step whose loss is not finite.
    Weights are checked before each checkpoint.
    """

    def __init__(self, report: Path):
        """Set the path of the list of the batch's files."""
        self.report = report
        self._unseen: list[_Step] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Collect the step's loss, and check the collected ones if it is time."""
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._unseen.append(_Step(trainer.current_epoch, trainer.global_step, rate, outputs["loss"], batch["row"]))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.checks_every_step(trainer, pl_module) or (batch_idx + 1) % max(1, every) == 0:
            self._look(trainer)

    @staticmethod
    def checks_every_step(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Return whether a loss can be checked without waiting for a device or other processes."""
        return pl_module.device.type == "cpu" and trainer.world_size == 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the remaining losses of an epoch before its validation."""
        self._look(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the losses and the weights before they are saved.

        Raises:
            DivergedError: One is not finite.
        """
        self._look(trainer)
        with torch.no_grad():
            sums = [weight.detach().float().sum() for weight in pl_module.parameters()]
            finite = all(math.isfinite(value) for value in torch.stack(sums).tolist())
        line = (
            f"the training diverged: after step {trainer.global_step} (epoch {trainer.current_epoch + 1}) the weights "
            "are not finite, and were not saved"
        )
        message = first_not_none(None if finite else line)
        if message is not None:
            raise DivergedError(message)

    def _look(self, trainer: pl.Trainer) -> None:
        steps, self._unseen = self._unseen, []
        losses = torch.stack([step.loss.detach() for step in steps]).tolist() if steps else []
        bad = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
        found = first_not_none(None if bad is None else self._found(trainer, steps[bad], losses[bad]))
        if found is None:
            return
        what, files = found
        if trainer.is_global_zero:
            with raise_write_errors("the batch's files", self.report):
                self.report.write_text("".join(files), encoding="utf-8", errors="surrogateescape")
        raise DivergedError(f"{what}; all {len(files)} are listed in {self.report}")

    @staticmethod
    def _found(trainer: pl.Trainer, bad: _Step, loss: float) -> tuple[str, list[str]]:
        """Return the message, and the paths of the batch's files as lines."""
        index: FaceIndex = trainer.datamodule.index  # type: ignore[attr-defined]
        names = [index.names[row] for row in bad.rows.tolist()]
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        what = (
            f"the training diverged: the loss of step {bad.step} (epoch {bad.epoch + 1}) is {loss}, at learning rate "
            f"{bad.rate:g}, with the faces {shown}"
        )
        return what, [f"{index.folder / name}\n" for name in names]
