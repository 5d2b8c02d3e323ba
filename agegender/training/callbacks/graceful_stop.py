"""Graceful stop of a run on SIGINT (Ctrl-C), SIGTERM (sent by schedulers) and SIGHUP (a closed terminal)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from agegender.distributed.collectives import MaxOverRanks, is_distributed
from agegender.distributed.launcher import script
from agegender.errors import InterruptedRunError, SignalExit
from agegender.system.signals import WORDS, handling

_RELAYED = 1.0  # seconds in which a second signal is taken for the first one, relayed by torchrun


class GracefulStop(Callback):
    """On SIGINT, SIGTERM or SIGHUP, finish the step, save `last.ckpt` and stop; on a second signal, stop at once.

    Lightning's own handlers stop without saving a checkpoint. A running validation is finished first, and then the next
    epoch's first step.
    """

    def __init__(self, last_checkpoint: Path):
        """Set the path of the checkpoint."""
        self.last_checkpoint = last_checkpoint
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._max_over_ranks = MaxOverRanks()
        self._previous: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers.

        Not earlier: Lightning saves the handlers between `on_fit_start` and this hook, and restores them at the end.
        """
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            handled = [number for number in WORDS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._ask) for number in handled}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked with this handler; the main process ends it
            return
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._asked_at = signal.Signals(number), now
        elif not (is_distributed() and now - self._asked_at < _RELAYED):
            line = f"{WORDS[signal.Signals(number)]} at once, without another checkpoint"
            raise SignalExit(line, 128 + number)

    def _stops(self) -> bool:
        """Return whether to stop now; all ranks agree, whichever of them received the signal."""
        asked = self._max_over_ranks.all_reduce_max(self._asked or 0)
        if asked:  # else keep a signal that arrived during the vote for the next step
            self._asked = signal.Signals(asked)
        return asked > 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two steps; after an epoch's last step, the validation runs first."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0  # accumulated gradients are not saved
        if whole_step and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._stops():
            batches = f"{batch_idx + 1} of {trainer.num_training_batches} batches"
            self._save_and_stop(trainer, f"in epoch {trainer.current_epoch + 1} after {batches}")

    def _save_and_stop(self, trainer: pl.Trainer, where: str) -> None:
        trainer.save_checkpoint(self.last_checkpoint, weights_only=False)  # with the optimizer and loops
        raise self._stopped(where)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the signal handlers; stop here on a signal that arrived in the last step."""
        self._give_back()
        if self._stops():
            raise self._stopped("after the last epoch")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._give_back()

    def _give_back(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _stopped(self, where: str) -> InterruptedRunError:
        asked = self._asked or signal.SIGTERM
        run = self.last_checkpoint.parent.parent
        line = f"{WORDS[asked]} {where}; continue with: {script('train')} resume={run}"
        return InterruptedRunError(line, 128 + asked)


@contextmanager
def handle_signals(run: Path) -> Iterator[None]:
    """Handle signals outside the training too: before its first step, or in the test.

    Not as a KeyboardInterrupt, on which Lightning ends the process without a word.

    Args:
        run: The run's folder, which is searched for a checkpoint to continue from when the signal arrives.
    """

    def end(number: int, frame: FrameType | None) -> None:
        saved = (run / "checkpoints" / "last.ckpt").is_file()
        way_on = f"; continue with: {script('train')} resume={run}" if saved else " before any training"
        raise SignalExit(WORDS[signal.Signals(number)] + way_on, 128 + number)

    with handling(end):
        try:
            yield
        except Exception as error:
            # Lightning's clean-up after the signal fails if the evaluation was not set up yet.
            if (behind := _signal_behind(error)) is not None:
                raise behind from None
            raise


def _signal_behind(error: BaseException) -> SignalExit | None:
    """Return the `SignalExit` during whose handling an error was raised, if any."""
    context = error.__context__
    while context is not None and not isinstance(context, SignalExit):
        context = context.__context__
    return context
