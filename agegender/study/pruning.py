"""Stops a trial that does worse than the others did at its age: a callback that reports every epoch to the study."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from optuna import load_study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import MedianPruner
from optuna.trial import Trial

from agegender.study.storage import live_trial, open_storage

log = logging.getLogger(__name__)

PRUNED = "pruned_after_epoch"  # the attribute of a trial that was stopped


class PruneTrial(Callback):
    """Reports the monitored figure to an Optuna study and stops the training when its best so far is below the median.

    Unlike Optuna's own callback for Lightning it works in another process than the study's, and ends the run as early
    stopping does, not by an exception: a pruned run has its best checkpoint and its figures like any other.
    """

    def __init__(
        self,
        folder: str,
        storage: str | None,
        study: str,
        trial: int | None,
        monitor: str,
        startup_trials: int = 5,
        warmup_epochs: int = 3,
    ):
        """Name the trial.

        Args:
            folder: Of the study.
            storage: Its address; None for the SQLite file in the folder.
            study: Its name.
            trial: This run's number in it; None for a run outside any study, which is left alone.
            monitor: The figure.
            startup_trials: So many trials must have run to their end before one is stopped.
            warmup_epochs: No trial is stopped before it has had so many.
        """
        self.folder, self.storage, self.study, self.trial, self.monitor = Path(folder), storage, study, trial, monitor
        self.pruner = MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_epochs)
        self._live: Trial | None = None
        self._open = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the study; one process of several speaks to it."""
        if self.trial is None or not trainer.is_global_zero:
            return
        storage = self._open.enter_context(open_storage(self.storage, self.folder))
        study = load_study(study_name=self.study, storage=storage, pruner=self.pruner)
        if study.get_trials(deepcopy=False)[self.trial].state.is_finished():
            log.info("trial %d of the study is over: this run isn't reported to it", self.trial)
        else:
            self._live = live_trial(study, self.trial)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch, and asks whether to go on."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        stop = self._live is not None and not trainer.should_stop and self._hopeless(self._live, trainer)
        trainer.should_stop |= trainer.strategy.reduce_boolean_decision(stop, all=False)

    def _hopeless(self, trial: Trial, trainer: pl.Trainer) -> bool:
        epoch, figure = trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])
        if not math.isfinite(figure):  # a training that diverged: it is going to fail, and has nothing to compare
            return False
        try:
            trial.report(figure, epoch)
            if not trial.should_prune():
                return False
            trial.set_user_attr(PRUNED, epoch)
        except UpdateFinishedTrialError:  # the search was started again meanwhile and took this trial for dead
            self._live = None
            return False
        log.info("pruned after epoch %d: half of the trials were better by then", epoch)
        return True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the study."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the study."""
        self._close()

    def _close(self) -> None:
        self._live = None
        self._open.close()
