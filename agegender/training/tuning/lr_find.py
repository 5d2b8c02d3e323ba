"""Learning-rate range test (`lr_find=true`): one short training whose learning rate rises from step to step.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017. Lightning's Tuner sets one rate for all
parameter groups and drives the scheduler of the module; here the groups keep their ratio (`optim.trunk_lr_mult`), and
the rate is that of a constant schedule.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from agegender.data.datamodule import AgeGenderDataModule
from agegender.distributed.collectives import is_rank_zero
from agegender.errors import require
from agegender.system.files import atomic_write, display_path, raise_write_errors
from agegender.training.module import AgeGenderModule

log = logging.getLogger(__name__)

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 120
RATES: NDArray[np.float64] = np.geomspace(LOWEST, HIGHEST, STEPS)
_SKIPPED = 10  # first steps, whose loss is that of the initial weights
_DIVERGED = 4.0  # the test ends at this multiple of the lowest loss, as Lightning's
_SMOOTHING = 0.9  # weight of the earlier losses in the moving average


class LearningRateTest(Callback):
    """Set the learning rate of each optimizer step, and record the losses.

    Attributes:
        losses: The loss at each of `RATES`, as far as the test came: the mean over the step's batches and the ranks.
    """

    def __init__(self) -> None:
        """Begin without losses."""
        self.losses: list[float] = []
        self._ratios: list[float] = []
        self._parts: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the ratios of the groups' rates to the optimizer's.

        Raises:
            AgeGenderError: The optimizer's rate is 0, or it has none.
        """
        (optimizer,) = trainer.optimizers
        rate = optimizer.defaults.get("lr") or 0.0
        require(rate > 0, "lr_find=true needs an optimizer with a learning rate above 0: set optim.lr=1e-3")
        self._ratios = [group["lr"] / rate for group in optimizer.param_groups]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the step's rate."""
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = float(RATES[len(self.losses)]) * ratio

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss if the optimizer has stepped; end the test when it has diverged."""
        self._parts.append(outputs["loss"] * trainer.accumulate_grad_batches)  # Lightning has divided it
        if trainer.global_step == len(self.losses):
            return  # gradients are accumulated
        loss = trainer.strategy.reduce(torch.stack(self._parts).mean(), reduce_op="mean")
        self._parts = []
        self.losses.append(float(loss))
        smooth = smoothed(self.losses)
        diverged = len(smooth) > _SKIPPED and smooth[-1] > _DIVERGED * np.nanmin(smooth)
        if diverged or not math.isfinite(self.losses[-1]):
            trainer.should_stop = True


def smoothed(losses: list[float]) -> NDArray[np.float64]:
    """Return the exponential moving average of losses, corrected for its start at zero (Kingma and Ba 2015)."""
    average, values = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        values.append(average / (1 - _SMOOTHING**count))
    return np.array(values)


def suggest(losses: list[float]) -> float | None:
    """Return a tenth of the rate with the lowest smoothed loss; None if the loss doesn't fall.

    That is `minimum` of fastai's `lr_find` (Howard and Gugger, "fastai: A Layered API for Deep Learning", Information
    2020). The steepest descent, Lightning's choice, varies by orders of magnitude with the noise of single batches.

    Args:
        losses: The losses at the first of `RATES`.
    """
    smooth = smoothed([loss for loss in losses if math.isfinite(loss)])
    lowest = _SKIPPED + int(np.argmin(smooth[_SKIPPED:])) if len(smooth) > _SKIPPED else 0
    return float(RATES[lowest] / 10) if lowest > _SKIPPED else None


def find_learning_rate(
    trainer: pl.Trainer,
    test: LearningRateTest,
    module: AgeGenderModule,
    data: AgeGenderDataModule,
    folder: Path,
    command: str,
) -> float:
    """Run the test, write its plot and log the suggested rate.

    Args:
        trainer: A Trainer of `build_tuning_trainer` that takes at most `STEPS` steps.
        test: One of its callbacks.
        module: The module, whose weights are trained by the test.
        data: Data that is set up.
        folder: Folder of the plot.
        command: The command of the training, which the rate completes: `python train.py ... optim.lr=`.

    Raises:
        AgeGenderError: No rate made the loss fall.
    """
    module.optim = {**module.optim, "scheduler": None}
    trainer.fit(module, data)
    rate = suggest(test.losses)
    require(
        rate is not None,
        f"lr_find: the loss fell at no learning rate from {LOWEST:g} to {HIGHEST:g}: check the data, or set optim.lr",
    )
    assert rate is not None
    short = _short(rate)
    if is_rank_zero():
        path = folder / "lr_find.png"
        _plot(test.losses, rate, path)
        log.info("suggested learning rate %s; plot: %s; now: %s%s", short, display_path(path), command, short)
    return float(short)


def _short(rate: float) -> str:
    """Return a rate with two digits, such as 1.2e-3."""
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def _plot(losses: list[float], rate: float, path: Path) -> None:
    from agegender.evaluation.html.plot_style import BLUE, GRAY, ORANGE, new_plot, to_png  # imports matplotlib

    figure, axes = new_plot()
    rates, smooth = RATES[: len(losses)], smoothed(losses)
    axes.plot(rates, losses, color=GRAY, alpha=0.4, label="loss")
    axes.plot(rates, smooth, color=BLUE, label="smoothed")
    axes.axvline(rate, color=ORANGE, label=f"suggested: {_short(rate)}")
    shown = smooth[np.isfinite(smooth)]
    axes.set_ylim(float(shown.min()) * 0.9, min(float(shown.max()), float(shown[0]) * 1.5) * 1.05)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
    with raise_write_errors("the plot of the learning rates", path), atomic_write(path, "wb") as file:
        file.write(to_png(figure))
