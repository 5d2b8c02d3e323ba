"""Speed of `train.py`'s training loop, as a ratio to a bare PyTorch loop with the same network, batches and data.

Both train in one process, some steps in turn: a callback pauses the real Trainer, which has its logging, progress bar
and callbacks, and runs the bare loop. Required ratio: 0.95. `python -m benchmarks.training [overrides of train.py]`.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from agegender.config.hydra_versions import version_base
from agegender.data.datamodule import AgeGenderDataModule
from agegender.models.network import MultiTaskNet
from agegender.system.malloc import disable_malloc_trim
from agegender.tasks.monitor import with_monitor
from agegender.training import builders
from benchmarks.bare import CONF, training_step
from benchmarks.paired import Paired

Settings = dict[str, Any]
Steps = Callable[[int], int]  # runs the given number of training steps; returns the number of images
Rival = Callable[[Settings, AgeGenderDataModule, MultiTaskNet], Steps]


class TakeTurns(Callback):
    """Time the Trainer's steps in turn with those of another training loop."""

    def __init__(self, rival: Steps, steps: int, rounds: int):
        """Initialize the timer.

        Args:
            rival: The other training loop.
            steps: Training steps per turn.
            rounds: Number of measured rounds, after one of warm-up.
        """
        self.rival, self.steps, self.rounds = rival, steps, rounds
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._taken, self._images, self._since = 0, 0, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the turn, because its time would include the validation."""
        self.steps, self._taken = min(self.steps, int(trainer.num_training_batches) - 1), 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """After a turn of the Trainer, run and time a turn of the other loop."""
        if self._taken == self.steps:
            self.ours.append(self._images / (time.perf_counter() - self._since))
            start = time.perf_counter()
            images = self.rival(self.steps)
            self.theirs.append(images / (time.perf_counter() - start))
            trainer.should_stop = len(self.ours) > self.rounds
            self._taken = 0
        if self._taken == 0:
            self._images, self._since = 0, time.perf_counter()
        self._taken += 1
        self._images += len(batch["row"])


def bare_loop(settings: Settings, data: AgeGenderDataModule, net: MultiTaskNet) -> Steps:
    """Return a training loop in plain PyTorch over the same pixels."""

    def steps() -> Iterator[int]:
        take = training_step(net, settings["optim"]["lr"], settings["trainer"]["precision"] == "bf16-mixed")
        faces, size = data.split("train"), settings["data"]["batch_size"]
        while True:
            order = torch.randperm(len(faces)).tolist()
            for start in range(0, len(order), size):
                batch = faces.__getitems__(order[start : start + size])
                take(batch["image"], batch["labels"])
                yield len(batch["row"])

    loop = steps()
    return lambda count: sum(next(loop) for _ in range(count))


def measure(overrides: list[str], steps: int = 20, rounds: int = 5, rival: Rival = bare_loop) -> Paired:
    """Return the images per second of `train.py` with these overrides, and of another training loop.

    Args:
        overrides: Overrides on `train.py`'s command line.
        steps: Training steps per turn.
        rounds: Number of pairs of turns.
        rival: Builds the other loop from the same settings, data and a copy of the network.
    """
    disable_malloc_trim()  # as train.py does; the bare loop gains as much by it
    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(CONF), **version_base()):
        # enough epochs for all turns; the bar and every default callback are there, as on a terminal
        shown = ["trainer.max_epochs=1000", "callbacks.progress._target_=lightning.pytorch.callbacks.RichProgressBar"]
        config = compose("train", [*overrides, *shown, f"hydra.run.dir={folder}"], return_hydra_config=True)
        config.hydra.runtime.output_dir = folder
        HydraConfig.instance().set_config(config)
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        composed: Settings = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
        settings = with_monitor(composed)
        data = builders.build_data(settings)
        data.prepare_data()
        data.setup()
        module = builders.build_module(settings, data)
        turns = TakeTurns(rival(settings, data, copy.deepcopy(module.network).train()), steps, rounds)
        trainer = builders.build_trainer(settings, Path(folder), [turns])
        trainer.fit(module, data)
    return Paired(f"train.py {' '.join(overrides)}", turns.ours[1:], turns.theirs[1:])


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of pairs of turns")
    parser.add_argument("--steps", type=int, default=20, help="training steps per turn")
    parser.add_argument("overrides", nargs="*", help="settings of train.py, such as data=synthetic trainer=mixed")
    chosen = parser.parse_args()
    print("against a bare PyTorch loop:", measure(chosen.overrides or ["data=synthetic"], chosen.steps, chosen.rounds))


if __name__ == "__main__":
    main()
