"""Progress of a training: a bar on a terminal, lines in a log. Epochs count from 1, as everywhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from agegender.system.terminal import console, is_quiet
from agegender.tasks.task import Task

log = logging.getLogger(__name__)
_ANNOUNCED_AFTER = 5.0  # seconds of training from which the estimate in the log is computed
_REFRESH = 0.2  # seconds between two updates of the bar, each of which waits for the device


class Estimate(NamedTuple):
    """Estimated seconds of a training: those left, and all."""

    left: float
    total: float


class TrainingClock:
    """Estimates the duration of a training from the batches of this process, and validations between them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Set the clock, in seconds."""
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def after_batch(self, trainer: pl.Trainer, batch_idx: int) -> Estimate | None:
        """Return the estimate after a batch; None after the first, which is slower, and for an unknown length."""
        if not math.isfinite(trainer.num_training_batches):
            return None
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        if self._first is None:
            self._first = self._clock(), done
        start, before = self._first
        planned = _planned_batches(trainer)
        if done <= before or not math.isfinite(planned):
            return None
        seconds = (self._clock() - start) / (done - before)
        return Estimate(seconds * max(0, planned - done), seconds * planned)

    @property
    def elapsed(self) -> float:
        """Seconds since the first batch."""
        return self._clock() - self._first[0] if self._first else 0.0


def _planned_batches(trainer: pl.Trainer) -> float:
    epochs, steps = epoch_count(trainer), trainer.max_steps
    by_epochs = trainer.num_training_batches * epochs if epochs else math.inf
    return min(by_epochs, steps * trainer.accumulate_grad_batches if steps is not None and steps > 0 else math.inf)


def epoch_count(trainer: pl.Trainer) -> int | None:
    """Return the number of epochs after which a training ends; None if none is set."""
    return trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None


def _named(trainer: pl.Trainer, epoch: int) -> str:
    total = epoch_count(trainer)
    return f"epoch {epoch}/{total}" if total else f"epoch {epoch}"


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Epochs(Callback):
    """Print one line per epoch, at the next epoch's start: Lightning runs the module's hooks after the callbacks'."""

    def __init__(self) -> None:
        super().__init__()
        self._finished: int | None = None
        self._validated = False
        self._clock = TrainingClock()

    def write(self, trainer: pl.Trainer, epoch: int, validated: bool) -> None:
        raise NotImplementedError

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
            self.write(trainer, self._finished, self._validated)
            self._validated = False
        self._finished = None


class _Lines(_Epochs):
    """Log one line per epoch, and once the estimated duration of a training that takes more than seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._announced = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._announced:
            return
        estimate = self._clock.after_batch(trainer, batch_idx)
        if estimate is not None and self._clock.elapsed >= _ANNOUNCED_AFTER:
            self._announced = True
            epochs = f"{epoch_count(trainer)} epochs" if epoch_count(trainer) else "the training"
            log.info("about %s for %s", duration(estimate.total), epochs)

    def write(self, trainer: pl.Trainer, epoch: int, validated: bool) -> None:
        losses, metrics = _losses(trainer, validated), []
        for _, _, metric, value in _metrics(trainer) if validated else ():
            title, _, unit = metric.title.partition(", ")
            metrics.append(f"{title} {metric.form.format(value).replace('%', ' %')} {unit}".rstrip())
        parts = [f"{stage} loss {value:.3f}" for stage, value in losses.items()]
        log.info("%s: %s", _named(trainer, epoch), ", ".join([*parts, *metrics]))


class _Bar(_Epochs, ProgressBar):
    """One line: epoch, bar, time left of the whole training, losses, and the first metric of each task."""

    def __init__(self, leave: bool = True) -> None:
        super().__init__()
        self._leave = leave
        self._console, self._column = console(), BarColumn(bar_width=20)
        self._enabled, self._refreshed = True, -math.inf
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._figures = self._left = ""

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def write(self, trainer: pl.Trainer, epoch: int, validated: bool) -> None:
        self._figures = compact_figures(trainer, validated)
        if self._leave and self._progress is not None:
            self._progress.console.print(f"{_named(trainer, epoch)}: {self._figures}", soft_wrap=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        estimate = self._clock.after_batch(trainer, batch_idx)
        if self._is_due():
            self._left = f"{duration(estimate.left)} left " if estimate else ""
            if not self._figures:  # no epoch has ended
                self._figures = f"loss {float(outputs['loss']):.2f}"
            name = _named(trainer, trainer.current_epoch + 1)
            self._show(name, batch_idx + 1, self.total_train_batches, self._figures)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_due():
            self._show("validation", batch_idx + 1, sum(trainer.num_val_batches), self._figures)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._is_due():
            self._show("test", batch_idx + 1, sum(trainer.num_test_batches), "")

    def _is_due(self) -> bool:
        return self._enabled and time.monotonic() - self._refreshed >= _REFRESH

    def _show(self, name: str, done: int, total: float, figures: str) -> None:
        self._refreshed = time.monotonic()
        if self._progress is None:
            columns = (TextColumn("{task.description}", markup=False), self._column)
            texts = TextColumn("{task.fields[figures]}", markup=False)
            self._progress = Progress(*columns, texts, console=self._console, transient=True)
            self._task = self._progress.add_task(name, figures="")
            self._progress.start()
        figures, self._column.bar_width = fit_line(name, f"{self._left}{figures}", self._console.width)
        whole = total if math.isfinite(total) else None
        self._progress.update(self._task, description=name, completed=done, total=whole, figures=figures)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._left, self._refreshed = None, "", -math.inf


def fit_line(name: str, figures: str, width: int) -> tuple[str, int]:
    """Return the text after the bar, shortened if needed, and the width of the bar, for a line of `width` columns."""
    room = max(8, width - len(name) - 3)  # a space on each side of the bar, and a free last column
    figures = figures[: room - 4]
    return figures, min(30, room - len(figures))


def compact_figures(trainer: pl.Trainer, validated: bool) -> str:
    """Return the losses of the last epoch and the first metric of each task, under their names in the logs."""
    names = {"train": "loss", "validation": "val"}
    parts = [f"{names[stage]} {value:.2f}" for stage, value in _losses(trainer, validated).items()]
    for name, key, metric, value in _metrics(trainer) if validated else ():
        parts.append(f"{name} {key} {metric.form.format(value)}")
    return " ".join(parts)


def _losses(trainer: pl.Trainer, validated: bool) -> dict[str, float]:
    stages = {"train": "train", **({"val": "validation"} if validated else {})}
    values = trainer.callback_metrics
    return {title: float(values[f"{key}/loss"]) for key, title in stages.items() if f"{key}/loss" in values}


def _metrics(trainer: pl.Trainer) -> Iterator[tuple[str, str, Any, float]]:
    """Yield name, key, description and value of each task's first validation metric."""
    tasks: dict[str, Task] = dict(trainer.lightning_module.network.each_task())  # type: ignore[operator, union-attr]
    for name, task in tasks.items():
        key, metric = next(iter(task.metrics().items()))
        value = float(trainer.callback_metrics.get(f"val/{name}_{key}", math.nan))
        if math.isfinite(value):  # a metric without any label is NaN
            yield name, key, metric, value


def progress_bar(leave: bool = True) -> Callback:
    """Return a progress bar if standard output is a terminal, else a callback that logs a line per epoch.

    In a sweep neither prints anything.

    Args:
        leave: Keep a line with each epoch's metrics above the bar.
    """
    return _Bar(leave) if sys.stdout.isatty() and not is_quiet() else _Lines()
