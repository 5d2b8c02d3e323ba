"""Images for the loggers, drawn with Pillow: predictions for faces, an age scatter plot, a gender confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agegender.data.index.utkface import MISSING
from agegender.data.loading.dataset import Batch, FaceDataset
from agegender.errors import require
from agegender.training.callbacks.prediction_buffer import PredictionBuffer
from agegender.training.loggers.experiment_trackers import log_picture, takes_pictures

INK, PAPER, ACCENT = (33, 37, 41), (255, 255, 255), (31, 119, 180)
LETTERS = ("M", "F")


class ValidationImageLogger(Callback):
    """Log three images after every validation, to all loggers that support images."""

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
        age, gender = dataset.index.age[answers["row"]], dataset.index.gender[answers["row"]]
        images = {"val/faces": face_grid(dataset, answers, self.faces)}
        if (known := age != MISSING).any():
            images["val/age_true_vs_predicted"] = age_scatter(age[known], answers["age_pred"][known])
        if (known := gender != MISSING).any():
            images["val/gender_confusion"] = confusion_matrix(gender[known], answers["p_female"][known] > 0.5)
        for logger in loggers:
            for name, image in images.items():
                log_picture(logger, name, image, trainer.global_step)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def face_grid(dataset: FaceDataset, answers: dict[str, NDArray[Any]], count: int, side: int = 128) -> Image.Image:
    """Draw faces in a grid, each captioned "true -> predicted" (age and gender letter).

    Args:
        dataset: Dataset of the faces.
        answers: Predictions, arrays `row`, `age_pred` and `p_female`.
        count: Number of faces, evenly spaced in the predictions.
        side: Side of each face in the image, in pixels.
    """
    chosen = np.unique(np.linspace(0, len(answers["row"]) - 1, count).astype(int))
    columns = int(np.ceil(np.sqrt(len(chosen))))
    cell, caption = side + 4, 20
    rows = int(np.ceil(len(chosen) / columns))
    sheet = Image.new("RGB", (columns * cell, rows * (cell + caption)), PAPER)
    draw, index = ImageDraw.Draw(sheet), dataset.index
    for place, i in enumerate(chosen):
        row = answers["row"][i]
        pixels = dataset.pixels.read(np.array([row]))[0]
        face = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        left, top = place % columns * cell, place // columns * (cell + caption)
        sheet.paste(face.resize((side, side)).convert("RGB"), (left + 2, top + 2))
        age, gender = index.age[row], index.gender[row]
        truth = f"{'?' if age == MISSING else age} {'?' if gender == MISSING else LETTERS[gender]}"
        prediction = f"{answers['age_pred'][i]:.0f} {LETTERS[int(answers['p_female'][i] > 0.5)]}"
        middle = (left + cell // 2, top + cell + caption // 2)
        draw.text(middle, f"{truth} -> {prediction}", INK, _font(14), anchor="mm")
    return sheet


def age_scatter(true: NDArray[Any], predicted: NDArray[Any], side: int = 420) -> Image.Image:
    """Draw predicted against true age, in years, with the diagonal of perfect predictions."""
    top = max(100, int(np.ceil(max(true.max(), predicted.max()) / 20)) * 20)
    margin, scale = 46, (side - 76) / top
    sheet = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(sheet, "RGBA")

    def place(x: float, y: float) -> tuple[float, float]:
        return margin + x * scale, side - margin - y * scale

    for tick in range(0, top + 1, 20):
        draw.line([place(tick, 0), place(tick, top)], (*INK, 30))
        draw.line([place(0, tick), place(top, tick)], (*INK, 30))
        draw.text((place(tick, 0)[0], side - margin + 6), str(tick), INK, _font(12), anchor="ma")
        draw.text((margin - 6, place(0, tick)[1]), str(tick), INK, _font(12), anchor="rm")
    draw.line([place(0, 0), place(top, top)], INK, 1)
    for x, y in zip(true.tolist(), predicted.tolist(), strict=True):
        left, up = place(x, y)
        draw.ellipse((left - 2, up - 2, left + 2, up + 2), (*ACCENT, 90))
    draw.text((side / 2, side - 8), "true age, years", INK, _font(13), anchor="ms")
    draw.text((margin, 6), "predicted age, years", INK, _font(13), anchor="la")
    return sheet


def confusion_matrix(
    true: NDArray[Any], predicted: NDArray[Any], labels: Sequence[str] = ("male", "female"), side: int = 420
) -> Image.Image:
    """Draw the confusion matrix, true labels in rows and predictions in columns, with counts and row percentages."""
    counts = np.zeros((2, 2), dtype=int)
    np.add.at(counts, (true.astype(int), predicted.astype(int)), 1)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    margin = 70
    cell = (side - margin) // 2
    sheet = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i in range(2):
        for j in range(2):
            left, top, fraction = margin + j * cell, margin + i * cell, float(fractions[i, j])
            fill = tuple(round(255 + (c - 255) * fraction) for c in ACCENT)
            draw.rectangle((left, top, left + cell - 3, top + cell - 3), fill)
            ink = PAPER if fraction > 0.6 else INK
            middle = (left + cell // 2, top + cell // 2)
            draw.text(middle, f"{counts[i, j]}\n{100 * fraction:.1f} %", ink, _font(20), anchor="mm", align="center")
        draw.text((margin + i * cell + cell // 2, margin - 8), labels[i], INK, _font(14), anchor="ms")
        draw.text((margin - 8, margin + i * cell + cell // 2), labels[i], INK, _font(14), anchor="rm")
    draw.text((margin + cell, 18), "predicted", INK, _font(15), anchor="ms")
    draw.text((6, margin - 8), "true", INK, _font(15), anchor="ls")
    return sheet
