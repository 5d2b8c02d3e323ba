"""A Lightning callback that reports every epoch to an Optuna study and prunes trials below the median."""

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

from agegender.sweeps.optuna.storage import open_storage, running_trial

log = logging.getLogger(__name__)

PRUNED = "pruned_after_epoch"  # user attribute of a pruned trial


class OptunaPruning(Callback):
    """Report the monitored metric to an Optuna study, and stop the training when its best value is below the median.

    Unlike Optuna's callback for Lightning, it can run in another process than the study, and it ends the run as early
    stopping does, without an exception: a pruned run has its best checkpoint and its metrics like any other.
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
        """Initialize without opening the study.

        Args:
            folder: Folder of the study.
            storage: SQLAlchemy URL of the study; None for the SQLite file in the folder.
            study: Name of the study.
            trial: Number of this run's trial; None for a run outside any study, in which the callback does nothing.
            monitor: Name of the monitored metric.
            startup_trials: Number of trials that must be complete before any is pruned.
            warmup_epochs: Number of epochs before a trial may be pruned.
        """
        self.folder, self.storage, self.study, self.trial, self.monitor = Path(folder), storage, study, trial, monitor
        self.pruner = MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_epochs)
        self._running_trial: Trial | None = None
        self._stack = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the study, on rank 0 only."""
        if self.trial is None or not trainer.is_global_zero:
            return
        storage = self._stack.enter_context(open_storage(self.storage, self.folder))
        study = load_study(study_name=self.study, storage=storage, pruner=self.pruner)
        if study.get_trials(deepcopy=False)[self.trial].state.is_finished():
            log.info("trial %d of the study has ended: this run isn't reported to it", self.trial)
        else:
            self._running_trial = running_trial(study, self.trial)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch, and stop the training on all ranks if the trial is to be pruned."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        stop = (
            self._running_trial is not None
            and not trainer.should_stop
            and self._should_prune(self._running_trial, trainer)
        )
        trainer.should_stop |= trainer.strategy.reduce_boolean_decision(stop, all=False)

    def _should_prune(self, trial: Trial, trainer: pl.Trainer) -> bool:
        epoch, score = trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])
        if not math.isfinite(score):  # diverged: the trial is going to fail, and must not enter the median
            return False
        try:
            trial.report(score, epoch)
            if not trial.should_prune():
                return False
            trial.set_user_attr(PRUNED, epoch)
        except UpdateFinishedTrialError:  # a search that was started meanwhile marked this trial as failed
            self._running_trial = None
            return False
        log.info("pruned after epoch %d: its best value is worse than the median of the trials", epoch)
        return True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the study."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the study."""
        self._close()

    def _close(self) -> None:
        self._running_trial = None
        self._stack.close()
