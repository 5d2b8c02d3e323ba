"""A run of `lr_find=true` or `batch_size_find=true`: its Trainer, and the folder that it leaves."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from agegender.data.datamodule import AgeGenderDataModule
from agegender.distributed.collectives import is_rank_zero
from agegender.distributed.launcher import script
from agegender.errors import require
from agegender.training.builders import build_tuning_trainer
from agegender.training.module import AgeGenderModule
from agegender.training.tuning.batch_size_find import TRIAL_STEPS, find_batch_size
from agegender.training.tuning.lr_find import STEPS, LearningRateTest, find_learning_rate

FINDERS = ("lr_find", "batch_size_find")


class Tuning:
    """A test of the first steps of a training instead of the training."""

    def __init__(self, settings: dict[str, Any], multirun: bool, overrides: Sequence[str]):
        """Build the Trainer.

        Args:
            settings: The run's settings, one of whose `FINDERS` is on.
            multirun: Whether this is a job of a Hydra multirun.
            overrides: The command's overrides.

        Raises:
            AgeGenderError: It is a multirun, whose jobs return a score; or a batch size for several devices.
        """
        (self.name,) = (name for name in FINDERS if settings[name])
        require(not multirun, f"{self.name}=true is for one run: leave out -m and sweep=")
        self.settings, self.overrides = settings, overrides
        self._test = LearningRateTest()
        self.trainer = build_tuning_trainer(settings, STEPS, [self._test])
        require(
            self.name == "lr_find" or self.trainer.world_size == 1,
            "batch_size_find=true is for one device: set trainer.devices=1, and multiply the size by their number",
        )

    def find(self, module: AgeGenderModule, data: AgeGenderDataModule, folder: Path) -> float:
        """Run the test and return the suggested value.

        Args:
            module: The module, whose weights are trained by the test.
            data: Data that is set up.
            folder: The run's folder.

        Raises:
            AgeGenderError: There is nothing to suggest.
        """
        if self.name == "batch_size_find":
            trial = partial(build_tuning_trainer, self.settings, TRIAL_STEPS)
            return find_batch_size(trial, module, data, self._command("data.batch_size"))
        key = "optim.lr" if "lr" in self.settings["optim"] else "optim.optimizer.lr"
        return find_learning_rate(self.trainer, self._test, module, data, folder, self._command(key))

    def _command(self, key: str) -> str:
        """Return the command of the training, up to the value of a setting."""
        changed = "|".join(re.escape(name) for name in (*FINDERS, key))
        kept = [item for item in self.overrides if not re.match(rf"\+*({changed})=", item)]
        return f"{script('train')} {shlex.join([*kept, key])}="


@contextmanager
def no_run_record(folder: Path) -> Iterator[None]:
    """Remove Hydra's record at the end, and an empty folder: `resume=auto` would take it for an unfinished run."""
    try:
        yield
    finally:
        if is_rank_zero() and not (folder / "checkpoints").exists():
            shutil.rmtree(folder / ".hydra", ignore_errors=True)
            with suppress(OSError):
                folder.rmdir()
