"""Progress of a training: a bar on a terminal, a line per epoch in a log."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar

from agegender.system.terminal import is_quiet
from agegender.tasks.task import Task

log = logging.getLogger(__name__)


class _Bar(RichProgressBar):
    """Lightning's Rich bar without the experiment's version number, which is always the same here."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = dict(super().get_metrics(trainer, pl_module))
        metrics.pop("v_num", None)
        return metrics


class _Lines(Callback):
    """Log one line per epoch, at the next epoch's start: Lightning runs the module's hooks after the callbacks'."""

    _finished: int | None = None
    _validated = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finished = trainer.current_epoch + 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)

    def _print(self, trainer: pl.Trainer) -> None:
        if self._finished is not None:
            log.info("epoch %d/%s: %s", self._finished, trainer.max_epochs, _figures(trainer, self._validated))
            self._validated = False
        self._finished = None


def _figures(trainer: pl.Trainer, with_validation: bool) -> str:
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    tasks: dict[str, Task] = dict(trainer.lightning_module.network.each_task())  # type: ignore[operator, union-attr]
    parts = [f"train loss {values['train/loss']:.3f}"] if "train/loss" in values else []
    validated = []
    for name, task in tasks.items() if with_validation else ():
        key, metric = next(iter(task.metrics().items()))
        value = values.get(f"val/{name}_{key}", math.nan)
        if math.isfinite(value):  # a metric without any label is NaN
            title, _, unit = metric.title.partition(", ")
            validated.append(f"{title} {metric.form.format(value).replace('%', ' %')} {unit}".rstrip())
    return ", ".join([*parts, *([f"validation {validated[0]}", *validated[1:]] if validated else [])])


def progress_bar(leave: bool = True, refresh_rate: int = 1) -> Callback:
    """Return a progress bar if standard output is a terminal, else a callback that logs a line per epoch.

    In a sweep neither prints anything.

    Args:
        leave: Keep each epoch's bar and metrics on the screen.
        refresh_rate: Batches between two updates of the bar.
    """
    shows = sys.stdout.isatty() and not is_quiet()
    return _Bar(leave=leave, refresh_rate=refresh_rate) if shows else _Lines()
