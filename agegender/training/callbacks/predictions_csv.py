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
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo
from agegender.training.callbacks.prediction_buffer import PredictionBuffer


class PredictionsCSVWriter(Callback):
    """Write the test predictions beside the labels, one line per image."""

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
        layout = _layout(index, pl_module.network.infos)  # type: ignore[union-attr, arg-type]
        text: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        with raise_write_errors("the test predictions", self.path), atomic_write(self.path, "w", **text) as file:
            writer = csv.writer(file)
            writer.writerow(["path", *(name for name, _, _ in layout)])
            for place, row in enumerate(predictions["row"]):
                labels = dict(zip(index.labels, index.label_cells(row), strict=True))
                cells = [_cell(predictions[key][place], form) if form else labels[key] for _, key, form in layout]
                writer.writerow([escape_formula(str(index.folder / index.names[row])), *cells])


def _layout(index: FaceIndex, tasks: tuple[TaskInfo, ...]) -> list[tuple[str, str, str]]:
    """Return the header, the column or label, and the format of each column; an empty format for labels.

    Each task's label precedes its predictions; the labels of no task come last.
    """
    layout: dict[str, tuple[str, str]] = {}
    for info in tasks:
        layout.setdefault(info.label, (info.label, ""))
        numbers = NUMBER_COLUMNS if info.kind == "number" else 0  # the other columns are probabilities
        layout |= {
            head: (key, ".3f" if place < numbers else ".9g")
            for place, (head, key) in enumerate(zip(info.test_columns, info.columns, strict=True))
        }
    for label in index.labels:
        layout.setdefault(label, (label, ""))
    return [(head, *column) for head, column in layout.items()]


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else ""
