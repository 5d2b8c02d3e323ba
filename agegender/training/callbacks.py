"""Callbacks: checkpoints, timing, and the CSV of test predictions."""

from __future__ import annotations

import csv
import math
import statistics
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from agegender.data.dataset import Batch
from agegender.data.index import FaceIndex
from agegender.files import write_whole, writing
from agegender.formulas import no_formula
from agegender.training.together import added_up, gathered


class Checkpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for runs whose folder was moved or copied before a resume.

    Lightning drops the best score if `dirpath` has changed, and a worse epoch would replace `best.ckpt`.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with every path moved to the current `dirpath`."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": best, **{name: here(state_dict[name]) for name in paths}}
        super().load_state_dict({**state_dict, **moved})


class Stopwatch(Callback):
    """Measure seconds per epoch, validation included, and training images per second, validation excluded.

    Its state is saved in checkpoints, so that a resumed run includes all its epochs.
    """

    def __init__(self) -> None:
        """Initialize without measurements."""
        self.epochs: list[float] = []
        self.rates: list[float] = []
        self._start: float | None = None  # stays None in an epoch that was resumed midway
        self._validating, self._images = 0.0, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._start, self._validating, self._images = time.perf_counter(), 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's images."""
        self._images += len(batch["row"]) if batch.get("share") != 0 else 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the validation's clock."""
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the validation's clock."""
        self._validating += time.perf_counter() - self._validation_start

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the epoch's clock."""
        if self._start is None:
            return
        elapsed = time.perf_counter() - self._start
        images = int(added_up(torch.tensor(self._images, device=pl_module.device)))
        self.epochs.append(elapsed)
        self.rates.append(images / (elapsed - self._validating))

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements."""
        return {"epochs": self.epochs, "rates": self.rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements."""
        self.epochs, self.rates = list(state_dict["epochs"]), list(state_dict["rates"])

    def figures(self) -> dict[str, float]:
        """Return the medians and the total over the measured epochs; empty without any."""
        if not self.epochs:
            return {}
        return {
            "seconds_per_epoch": round(statistics.median(self.epochs), 3),
            "images_per_second": round(statistics.median(self.rates), 1),
            "train_seconds": round(sum(self.epochs), 1),
        }


class Answers:
    """The predictions of one pass over a split, collected on the device and moved to the CPU once, at the end."""

    def __init__(self) -> None:
        """Initialize without predictions."""
        self._batches: list[dict[str, Tensor]] = []

    def add(self, outputs: Any) -> None:
        """Add one step's predictions, each `[batch]`: row, age_pred in years, p_female; in a test also their spread."""
        self._batches.append(outputs)

    def take(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the predictions of all ranks as arrays, sorted by row, and reset."""
        columns = {
            name: gathered(torch.cat([batch[name] for batch in self._batches])).cpu().numpy()
            for name in self._batches[0]
        }
        self._batches.clear()
        # If a batch is smaller than the number of devices, a row occurs twice (see `DealtSampler`): keep one.
        rows, first = np.unique(columns["row"], return_index=True)
        return {name: column[first] for name, column in columns.items()} | {"row": rows}


class PredictionsCsv(Callback):
    """Write the test predictions, one line per image."""

    def __init__(self, path: Path):
        """Set the output path."""
        self.path, self._answers = path, Answers()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the batch's predictions."""
        self._answers.add(outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, on rank 0."""
        predictions = self._answers.take()
        if not trainer.is_global_zero:
            return
        index: FaceIndex = trainer.datamodule.index  # type: ignore[attr-defined]
        text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        with writing("the test predictions", self.path), write_whole(self.path, "w", **text) as file:
            writer = csv.writer(file)
            stated = ("age_std", "age_low", "age_high")
            writer.writerow(["path", "age", "age_pred", *stated, "gender", "p_female", "group"])
            columns = (predictions[name] for name in ("row", "age_pred", "p_female", *stated))
            for row, age, p_female, *spread in zip(*columns, strict=True):
                path = no_formula(str(index.folder / index.names[row]))
                truth = index.cells(row)
                cells = [f"{value:.3f}" if math.isfinite(value) else "" for value in spread]
                writer.writerow([path, truth[0], f"{age:.3f}", *cells, truth[1], f"{p_female:.9g}", truth[2]])
