"""How any picture becomes pixels: the one decoder, used by training, validation, test and prediction alike."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from agegender.errors import FaultError

# Part of every cache's key: raise it when the pixels that come out change.
VERSION = 1

_RUN_PROGRAMS = ("EPS",)  # Pillow hands it to Ghostscript, where that is installed

ImageSource = str | Path | bytes | BinaryIO | Image.Image


class UnreadableImageError(ValueError):
    """A file that can't be decoded whole; the message is a reason in a few words."""


def read_image(source: ImageSource) -> Image.Image:
    """Reads a picture the way a person sees it: upright, opaque, 8-bit RGB.

    Handles EXIF rotation, CMYK, palettes, 16-bit depth, transparency (laid on white), bilevel and grey pictures; of an
    animation, the first frame.

    Args:
        source: A path, the bytes of a file, an open binary file, or a picture already opened by Pillow.

    Returns:
        A fully decoded picture in mode `RGB`.

    Raises:
        UnreadableImageError: The file is missing, empty, truncated, too large, or not a picture.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged EXIF and of more than half its pixel limit; what it can't read, it refuses.
            warnings.simplefilter("ignore")
            if isinstance(source, Image.Image):
                return _to_rgb(ImageOps.exif_transpose(source))
            if isinstance(source, str | Path):
                refuse_what_is_no_file(os.stat(source).st_mode)
                # opened here, not by Pillow, which leaves it open where its first bytes can't be read
                with Path(source).open("rb") as file:
                    return _decoded(file)
            return _decoded(source)
    except UnreadableImageError:
        raise
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except PermissionError:
        raise UnreadableImageError("no permission to read it") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("not a picture that can be read") from None
    # A damaged file can raise almost anything from a decoder (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise UnreadableImageError("a link that leads round in a circle") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"damaged: {reason[:120]}") from error


def _decoded(file: BinaryIO) -> Image.Image:
    with Image.open(file) as image:
        _refuse_programs(image.format)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def refuse_what_is_no_file(mode: int) -> None:
    """Refuses, by what `os.stat` says, a named pipe, whose opening may wait for ever, and what else holds no picture.

    Raises:
        UnreadableImageError: It is none.
    """
    if stat.S_ISDIR(mode):
        raise UnreadableImageError("a folder, not a picture")
    if not stat.S_ISREG(mode):
        raise UnreadableImageError("a pipe or a device, not a file")


def _refuse_programs(form: str | None) -> None:
    if form in _RUN_PROGRAMS:
        raise UnreadableImageError(f"{form} is a program, not a picture; save it as JPEG or PNG")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.width == 0 or image.height == 0:
        raise UnreadableImageError("a picture without pixels")
    if image.mode == "F":
        raise UnreadableImageError("32-bit float pixels have no agreed range; save it as 8-bit or 16-bit")
    if image.mode.startswith("I"):
        image = _sixteen_to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        background = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(background, opaque).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey to 8-bit; Pillow's own conversion clips at 255 instead, which turns a picture white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise UnreadableImageError("32-bit integer pixels have no agreed range; save it as 8-bit or 16-bit")
    return Image.fromarray((values // 257).astype(np.uint8))


def to_pixels(image: Image.Image, size: int, grayscale: bool) -> NDArray[np.uint8]:
    """Turns a picture into what the network is fed: THE eval transform.

    The largest centred square is cut out, made grey if asked, and resized with an antialiased bilinear filter.
    Validation, test, prediction and the pixel cache all go through here, so that they can't drift apart.

    Args:
        image: An RGB picture from `read_image`.
        size: Side of the result, in pixels.
        grayscale: One luma channel (ITU-R 601-2) instead of three.

    Returns:
        uint8 array of shape `[size, size, channels]`, channels being 1 or 3.
    """
    return np.asarray(_to_square(image, size, grayscale)).reshape(size, size, 1 if grayscale else 3)


def _to_square(image: Image.Image, size: int, grayscale: bool) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.width != image.height:
        image = image.crop((left, top, left + side, top + side))
    if grayscale:
        image = image.convert("L")
    return image.resize((size, size), Image.Resampling.BILINEAR)


def read_again(path: Path) -> Image.Image:
    """Reads a picture that could be read when the folder was indexed.

    Raises:
        FaultError: It no longer can.
    """
    try:
        return read_image(path)
    except UnreadableImageError as error:
        raise FaultError(
            f"{path} was readable when it was indexed and no longer is ({error}): put it back, or start again"
        ) from None


def write_pixels(
    array: Path, start: int, folder: Path, size: int, grayscale: bool, items: Sequence[tuple[int, str]]
) -> list[int]:
    """Writes files' pixels into rows of an array on disk, each row apart: several processes fill one array at once.

    Args:
        array: The file that holds the array.
        start: Where in it the array starts, in bytes.
        folder: Where the pictures are.
        size: Side of the pixels' square.
        grayscale: One channel instead of three.
        items: The array's rows, and the names of the pictures that they hold.

    Returns:
        The rows.

    Raises:
        AgeGenderError: A picture can't be read.
        OSError: The array can't be written.
    """
    with array.open("r+b") as file:
        for row, name in items:
            pixels = _to_square(read_again(folder / name), size, grayscale).tobytes()  # those of `to_pixels`
            file.seek(start + row * len(pixels))
            file.write(pixels)
    return [row for row, _ in items]
