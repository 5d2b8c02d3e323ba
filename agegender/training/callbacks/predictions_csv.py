"""The CSV of test predictions."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from agegender.data.index.index import FaceIndex
from agegender.data.loading.dataset import Batch
from agegender.system.csv_escape import escape_formula
from agegender.system.files import atomic_write, raise_write_errors
from agegender.training.callbacks.prediction_buffer import PredictionBuffer


class PredictionsCSVWriter(Callback):
    """Write the test predictions, one line per image."""

    def __init__(self, path: Path):
        """Set the output path."""
        self.path, self._buffer = path, PredictionBuffer()

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
        self._buffer.append(outputs)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, on rank 0."""
        predictions = self._buffer.pop_all()
        if not trainer.is_global_zero:
            return
        index: FaceIndex = trainer.datamodule.index  # type: ignore[attr-defined]
        text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        with raise_write_errors("the test predictions", self.path), atomic_write(self.path, "w", **text) as file:
            writer = csv.writer(file)
            stated = ("age_std", "age_low", "age_high")
            writer.writerow(["path", "age", "age_pred", *stated, "gender", "p_female", "group"])
            columns = (predictions[name] for name in ("row", "age_pred", "p_female", *stated))
            for row, age, p_female, *spread in zip(*columns, strict=True):
                path = escape_formula(str(index.folder / index.names[row]))
                truth = index.label_cells(row)
                cells = [f"{value:.3f}" if math.isfinite(value) else "" for value in spread]
                writer.writerow([path, truth[0], f"{age:.3f}", *cells, truth[1], f"{p_female:.9g}", truth[2]])
