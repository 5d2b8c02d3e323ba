"""Images for the loggers, drawn with Pillow: predictions for faces, scatter plots, and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agegender.data.loading.dataset import Batch, FaceDataset
from agegender.errors import require
from agegender.tasks.info import TaskInfo
from agegender.training.callbacks.prediction_buffer import PredictionBuffer
from agegender.training.loggers.experiment_trackers import log_picture, takes_pictures

INK, PAPER, ACCENT = (33, 37, 41), (255, 255, 255), (31, 119, 180)


class ValidationImageLogger(Callback):
    """Log faces, and a plot of each task, after every validation, to all loggers that support images."""

    def __init__(self, faces: int = 16):
        """Set the number of validation faces in the grid, which are evenly spaced in the split."""
        require(faces >= 1, f"callbacks.image_logger.faces={faces} must be at least 1")
        self.faces, self._buffer = faces, PredictionBuffer()

    def on_validation_batch_end(
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

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw and log the images."""
        answers = self._buffer.pop_all()
        loggers = [logger for logger in trainer.loggers if takes_pictures(logger)]
        if not loggers or not trainer.is_global_zero or trainer.sanity_checking:
            return
        dataset: FaceDataset = trainer.datamodule.split("val")  # type: ignore[attr-defined]
        tasks: tuple[TaskInfo, ...] = pl_module.network.infos  # type: ignore[assignment, union-attr]
        images = {"val/faces": face_grid(dataset, tasks, answers, self.faces)}
        for info in tasks:
            label = dataset.index.labels[info.label][answers["row"]]
            known = ~np.isnan(label)
            if not known.any():
                continue
            if info.kind == "number":
                predicted = answers[info.name][known]
                images[f"val/{info.name}_true_vs_predicted"] = scatter(label[known], predicted, info)
            else:
                predicted = predicted_codes(answers, info)[known]
                images[f"val/{info.name}_confusion"] = confusion_matrix(label[known], predicted, info.classes)
        for logger in loggers:
            for name, image in images.items():
                log_picture(logger, name, image, trainer.global_step)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def predicted_codes(answers: Mapping[str, NDArray[Any]], info: TaskInfo) -> NDArray[np.int64]:
    """Return the positions `[faces]` of the predicted classes."""
    if info.kind == "binary":
        return np.asarray(answers[info.columns[0]] > 0.5, dtype=np.int64)
    return np.asarray(np.stack([answers[column] for column in info.columns], 1).argmax(1))


def face_grid(
    dataset: FaceDataset, tasks: Sequence[TaskInfo], answers: dict[str, NDArray[Any]], count: int, side: int = 128
) -> Image.Image:
    """Draw faces in a grid, each captioned "true -> predicted" (numbers, and the first letters of classes).

    Args:
        dataset: Dataset of the faces.
        tasks: The tasks, whose labels and predictions are shown.
        answers: Predictions, arrays `row` and the tasks' columns.
        count: Number of faces, evenly spaced in the predictions.
        side: Side of each face in the image, in pixels.
    """
    chosen = np.unique(np.linspace(0, len(answers["row"]) - 1, count).astype(int))
    columns = int(np.ceil(np.sqrt(len(chosen))))
    cell, caption = side + 4, 20
    rows = int(np.ceil(len(chosen) / columns))
    sheet = Image.new("RGB", (columns * cell, rows * (cell + caption)), PAPER)
    draw, index = ImageDraw.Draw(sheet), dataset.index
    predicted = [answers[info.name] if info.kind == "number" else predicted_codes(answers, info) for info in tasks]
    for place, i in enumerate(chosen):
        row = answers["row"][i]
        pixels = dataset.pixels.read(np.array([row]))[0]
        face = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        left, top = place % columns * cell, place // columns * (cell + caption)
        sheet.paste(face.resize((side, side)).convert("RGB"), (left + 2, top + 2))
        truth = " ".join(_short(info, float(index.labels[info.label][row])) for info in tasks)
        prediction = " ".join(_short(info, float(values[i])) for info, values in zip(tasks, predicted, strict=True))
        middle = (left + cell // 2, top + cell + caption // 2)
        draw.text(middle, f"{truth} -> {prediction}", INK, _font(14), anchor="mm")
    return sheet


def _short(info: TaskInfo, value: float) -> str:
    if np.isnan(value):
        return "?"
    return f"{value:.0f}" if info.kind == "number" else info.classes[int(value)][0].upper()


def _tick_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which at most 8 make up the span."""
    power = float(10 ** np.floor(np.log10(span or 1.0)))
    return next(step for step in (0.1 * power, 0.2 * power, 0.5 * power, power, 2 * power) if span <= 8 * step)


def scatter(true: NDArray[Any], predicted: NDArray[Any], info: TaskInfo, side: int = 420) -> Image.Image:
    """Draw predicted against true values, with the diagonal of perfect predictions."""
    values = np.concatenate((true, predicted, [0.0]))
    step = _tick_step(float(np.ptp(values)))
    first, last = int(np.floor(values.min() / step)), int(np.ceil(values.max() / step))
    last = max(last, first + 1)
    low, top = first * step, last * step
    margin, scale = 46, (side - 76) / (top - low)
    title = f"{info.name}, {info.unit}" if info.unit else info.name
    sheet = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(sheet, "RGBA")

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + (x - low) * scale, side - margin - (y - low) * scale

    for tick in (number * step for number in range(first, last + 1)):
        draw.line([place(tick, low), place(tick, top)], (*INK, 30))
        draw.line([place(low, tick), place(top, tick)], (*INK, 30))
        draw.text((place(tick, low)[0], side - margin + 6), f"{tick:g}", INK, _font(12), anchor="ma")
        draw.text((margin - 6, place(low, tick)[1]), f"{tick:g}", INK, _font(12), anchor="rm")
    draw.line([place(low, low), place(top, top)], INK, 1)
    for x, y in zip(true.tolist(), predicted.tolist(), strict=True):
        left, up = place(x, y)
        draw.ellipse((left - 2, up - 2, left + 2, up + 2), (*ACCENT, 90))
    draw.text((side / 2, side - 8), f"true {title}", INK, _font(13), anchor="ms")
    draw.text((margin, 6), f"predicted {title}", INK, _font(13), anchor="la")
    return sheet


def confusion_matrix(
    true: NDArray[Any], predicted: NDArray[Any], labels: Sequence[str], side: int = 420
) -> Image.Image:
    """Draw the confusion matrix, true labels in rows and predictions in columns, with counts and row percentages."""
    count = len(labels)
    counts = np.zeros((count, count), dtype=int)
    np.add.at(counts, (true.astype(int), predicted.astype(int)), 1)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    margin = 70
    cell, font = (side - margin) // count, _font(20 if count == 2 else 11)
    sheet = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i in range(count):
        for j in range(count):
            left, top, fraction = margin + j * cell, margin + i * cell, float(fractions[i, j])
            fill = tuple(round(255 + (c - 255) * fraction) for c in ACCENT)
            draw.rectangle((left, top, left + cell - 3, top + cell - 3), fill)
            ink = PAPER if fraction > 0.6 else INK
            middle = (left + cell // 2, top + cell // 2)
            draw.text(middle, f"{counts[i, j]}\n{100 * fraction:.1f} %", ink, font, anchor="mm", align="center")
        draw.text((margin + i * cell + cell // 2, margin - 8), labels[i], INK, _font(14), anchor="ms")
        draw.text((margin - 8, margin + i * cell + cell // 2), labels[i], INK, _font(14), anchor="rm")
    draw.text((margin + count * cell // 2, 18), "predicted", INK, _font(15), anchor="ms")
    draw.text((6, margin - 8), "true", INK, _font(15), anchor="ls")
    return sheet
