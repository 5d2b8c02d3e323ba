"""Draws boxes and answers on pictures, legible at any size."""

from __future__ import annotations

import hashlib
import io
import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from agegender.errors import AgeGenderError
from agegender.files import write_whole
from agegender.overrides import ADDRESS
from agegender.prediction.answers import Prediction, in_words
from agegender.prediction.predictor import Answered

_INK, _PAPER = (255, 255, 255), (20, 60, 140)
_SMALLEST = 360  # pixels a side that labels need to be read and to find room; smaller pictures are enlarged
_ENLARGED = 4096  # but not so that the longer side goes beyond this: what is short then gets a margin
_LONGEST = 65_500  # pixels a side that a JPEG takes


def draw(picture: Image.Image, predictions: Sequence[Prediction]) -> Image.Image:
    """Returns a picture with a box around each face and its answers at the box.

    A label covers no other one while there is room for it; for six there always is.

    Args:
        picture: RGB. It stays as it is.
        predictions: Of this picture. One without a box (`detect=never`) is written at the top.
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
        lines = textwrap.wrap(prediction.error, 30) if prediction.error else in_words(prediction)
        text = "\n".join(lines)
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
    """Finds room for a label: below the box, above it, beside it or inside, the first that covers no other label.

    Where all these are taken it is the free one nearest to the box, of places that divide the picture up.
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


class Album:
    """A folder of annotated pictures, one for each that could be read.

    Each is `<its name>.jpg`, or `<its name>_2.jpg` and so on where that is taken: by another picture of the same name,
    or by a file that was there before. Only what an earlier run drew of the same picture is replaced; a comment in the
    file, a digest of the picture's path, tells.
    """

    def __init__(self, folder: Path):
        """Makes the folder.

        Raises:
            AgeGenderError: It can't be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AgeGenderError(f"annotate={folder} can't be made ({error.strerror}); name another folder") from None
        self._folder = folder
        self._names: set[str] = set()

    def add(self, answered: Answered) -> None:
        """Writes a picture.

        Raises:
            AgeGenderError: It can't be written.
        """
        if answered.picture is None:
            return
        comment = b"agegender " + hashlib.sha256(os.fsencode(answered.path)).hexdigest()[:16].encode()
        stem, number = _stem(answered.path), 1
        path = self._folder / f"{stem}.jpg"
        # some file systems take two names for one that differ in capitals only
        while path.name.casefold() in self._names or _is_of_another(path, comment):
            number += 1
            path = self._folder / f"{stem}_{number}.jpg"
        self._names.add(path.name.casefold())
        content = io.BytesIO()  # into a file, Pillow wouldn't notice that a full disk took a part only
        draw(answered.picture, answered.predictions).save(content, "JPEG", quality=92, comment=comment)
        try:
            with write_whole(path) as file:
                file.write(content.getbuffer())
        except OSError as error:
            raise AgeGenderError(f"can't write {path} ({error.strerror or error})") from None


def _stem(path: str) -> str:
    """Returns a picture's name without its ending, as any file system takes it."""
    if path.startswith(ADDRESS):
        path = path.split("?")[0]
    stem = Path(path).name if "#t=" in path else Path(path).stem
    stem = "".join(letter if letter.isalnum() or letter in " ._-()" else "_" for letter in stem)
    # file systems count bytes, and while it is written the name is longer
    return stem.encode()[:200].decode(errors="ignore").strip(" .") or "picture"


def _is_of_another(path: Path, comment: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        with Image.open(path) as image:
            return image.info.get("comment") != comment
    except (OSError, Image.DecompressionBombError):
        return True
