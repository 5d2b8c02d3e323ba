"""Annotated images: face boxes with labels, legible at any image size."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from agegender.config.overrides import ADDRESS
from agegender.errors import AgeGenderError
from agegender.prediction.prediction import Prediction, describe
from agegender.prediction.predictor import ImageResult
from agegender.system.files import atomic_write
from agegender.tasks.info import TaskInfo

_COMMENT = b"agegender "  # begins the comment of an annotated image, and 16 hexadecimal digits follow
_INK, _PAPER = (255, 255, 255), (20, 60, 140)
_SMALLEST = 360  # pixels of the shorter side that legible labels need; smaller images are enlarged
_ENLARGED = 4096  # pixels: limit of the enlarged longer side; a side that is still too short gets a margin
_LONGEST = 65_500  # pixels: the longest side of a JPEG file


def draw(picture: Image.Image, predictions: Sequence[Prediction], tasks: Sequence[TaskInfo]) -> Image.Image:
    """Return a copy of an image with a box around each face and a label at the box.

    Labels do not overlap while there is room; there always is for six of two lines.

    Args:
        picture: RGB image, not modified.
        predictions: Predictions for this image. The label of one without a box (`detect=never`) is at the top.
        tasks: The predictor's tasks, each a line of a label. The number of a track is a line above them.
    """
    enlarged = max(1.0, min(_SMALLEST / min(picture.size), _ENLARGED / max(picture.size)))
    enlarged = min(enlarged, _LONGEST / max(picture.size))
    size = max(1, round(picture.width * enlarged)), max(1, round(picture.height * enlarged))
    drawn = Image.new("RGB", (max(size[0], _SMALLEST), max(size[1], _SMALLEST)), "white")
    drawn.paste(picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC))
    pen = ImageDraw.Draw(drawn)
    letters = max(14, round(min(drawn.size) / 32))
    font = ImageFont.load_default(letters)
    taken: list[tuple[float, float, float, float]] = []
    for prediction in predictions:
        texts = [prediction.error] if prediction.error else describe(prediction, tasks)
        texts = [f"person {prediction.track}"] * (prediction.track is not None) + texts
        text = "\n".join(line for each in texts for line in textwrap.wrap(each, 30))
        box = [0.0, 0.0, float(size[0]), 0.0]
        if None not in (edges := (prediction.left, prediction.top, prediction.right, prediction.bottom)):
            box = [edge * enlarged for edge in edges if edge is not None]
            pen.rectangle(box, outline=_PAPER, width=max(2, letters // 6))
        label = _place(pen, text, font, box, drawn.size, taken)
        taken.append(label)
        pen.rectangle(label, fill=_PAPER)
        pen.multiline_text((label[0] + letters // 4, label[1] + letters // 8), text, _INK, font)
    return drawn


def _place(
    pen: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    box: Sequence[float],
    size: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Return the box of a label: the first free one below, above, beside or inside the face box.

    If all of them overlap another label, return the free cell nearest to the face box, of a grid over the image.
    """
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font)
    letters = round(getattr(font, "size", 14))
    width, height = math.ceil(right) + letters // 2, math.ceil(bottom) + letters // 2
    spots = [(box[0], box[3]), (box[0], box[1] - height), (box[2], box[1]), (box[0] - width, box[1]), (box[0], box[1])]
    columns, rows = (range(0, side - part + 1, part) for side, part in zip(size, (width, height), strict=True))
    spots += sorted(((x, y) for x in columns for y in rows), key=lambda spot: math.dist(spot, (box[0], box[3])))
    places = []
    for x, y in spots:
        left, top = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        places.append((left, top, left + width, top + height))
    free = (place for place in places if not any(_meet(place, other) for other in taken))
    return next(free, places[0])


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


class AnnotatedImageFolder:
    """A folder of annotated images, one for each image that could be read.

    It may lie in a folder of images, or be one: `list_images` leaves annotated images out.

    The file name is `<name>.jpg`, or `<name>_2.jpg` and so on if that exists already: from another image of the same
    name, or from before the run. Only the output of an earlier run for the same image is overwritten; it is recognized
    by a JPEG comment with a digest of the image's path.
    """

    def __init__(self, folder: Path, tasks: Sequence[TaskInfo]):
        """Create the folder.

        Args:
            folder: The output folder; parents are created too.
            tasks: See `draw`.

        Raises:
            AgeGenderError: The folder can't be created.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AgeGenderError(f"annotate={folder} can't be created ({error.strerror}); use another folder") from None
        self._folder, self._tasks = folder, tasks
        self._names: set[str] = set()

    def add(self, answered: ImageResult) -> None:
        """Write the annotated image; do nothing if the image could not be read.

        Raises:
            AgeGenderError: The file can't be written.
        """
        if answered.picture is None:
            return
        comment = _COMMENT + hashlib.sha256(os.fsencode(answered.path)).hexdigest()[:16].encode()
        stem, number = _stem(answered.path), 1
        path = self._folder / f"{stem}.jpg"
        # some file systems ignore case
        while path.name.casefold() in self._names or _is_of_another(path, comment):
            number += 1
            path = self._folder / f"{stem}_{number}.jpg"
        self._names.add(path.name.casefold())
        content = io.BytesIO()  # not straight into the file: Pillow ignores a short write on a full disk
        draw(answered.picture, answered.predictions, self._tasks).save(content, "JPEG", quality=92, comment=comment)
        try:
            with atomic_write(path) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise AgeGenderError(f"can't write {path} ({error.strerror or error})") from None


def _stem(path: str) -> str:
    """Return an image's name without its suffix, valid on every file system in characters and length."""
    if path.startswith(ADDRESS):
        path = path.split("?")[0]
    stem = Path(path).name if "#t=" in path else Path(path).stem
    stem = "".join(letter if letter.isalnum() or letter in " ._-()" else "_" for letter in stem)
    # limits are in bytes, and the temporary file's name is longer
    return stem.encode()[:200].decode(errors="ignore").strip(" .") or "picture"


def is_annotated(path: str) -> bool:
    """Return whether a file is an annotated image of an earlier run, by the comment in its first bytes."""
    if not path.lower().endswith(".jpg"):
        return False
    try:
        if not os.path.isfile(path):  # a pipe would block
            return False
        with Path(path).open("rb") as file:
            return re.search(rb"\xff\xfe..%b[0-9a-f]{16}" % _COMMENT, file.read(64), re.DOTALL) is not None
    except OSError:
        return False


def _is_of_another(path: Path, comment: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        with Image.open(path) as image:
            return image.info.get("comment") != comment
    except (OSError, Image.DecompressionBombError):
        return True
