"""Image decoding and the evaluation transform, shared by training, validation, test and prediction."""

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

from agegender.errors import SystemFaultError, missing_extra

# Part of every cache's key: increment it when the resulting pixels change.
VERSION = 1

_HEVC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_RUN_PROGRAMS = ("EPS",)  # Pillow runs Ghostscript on it if installed

ImageSource = str | Path | bytes | BinaryIO | Image.Image


class UnreadableImageError(ValueError):
    """A file that can't be decoded completely; the message is a short reason."""


class MissingDecoderError(UnreadableImageError):
    """An image whose decoder is not installed."""


def read_image(source: ImageSource) -> Image.Image:
    """Decode an image to upright, opaque, 8-bit RGB.

    Reads what Pillow reads, and HEIC with the extra `heic`. Handles EXIF rotation, CMYK, palettes, 16-bit depth,
    transparency (laid on white), bilevel and gray images; of an animation, the first frame.

    Args:
        source: A path, the bytes of a file, an open binary file, or an image already opened by Pillow.

    Returns:
        A fully decoded image in mode `RGB`.

    Raises:
        UnreadableImageError: The file is missing, empty, truncated, too large, or not an image.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged EXIF and of more than half its pixel limit; unreadable files raise.
            warnings.simplefilter("ignore")
            if isinstance(source, Image.Image):
                return _to_rgb(ImageOps.exif_transpose(source))
            if isinstance(source, str | Path):
                require_regular_file(os.stat(source).st_mode)
                # opened here, since Pillow leaves it open if its header can't be read
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
    try:
        file.seek(0)
    except (AttributeError, OSError):  # a stream
        file = io.BytesIO(file.read())
    is_heic = _is_heic(file.read(64))
    if is_heic:
        _register_heic()
    with Image.open(file, formats=["HEIF"] if is_heic else None) as image:
        _refuse_programs(image.format)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))


def _is_heic(head: bytes) -> bool:
    """Return whether a file begins as an HEIF container of HEVC images (ISO/IEC 23008-12, annex B), as phones write it.

    Pillow takes such a file for AVIF if its first brand is the general `mif1`.
    """
    brands = {head[place : place + 4] for place in (8, *range(16, min(len(head), int.from_bytes(head[:4])), 4))}
    return head[4:8] == b"ftyp" and bool(brands & _HEVC_BRANDS)


def _register_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingDecoderError(str(missing_extra("an HEIC image", error, "heic"))) from None
    pillow_heif.register_heif_opener()


def require_regular_file(mode: int) -> None:
    """Refuse anything but a regular file; opening a named pipe may block for ever.

    Args:
        mode: `st_mode` of `os.stat`.

    Raises:
        UnreadableImageError: It is a folder, a pipe or a device.
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
    """Scale 16-bit gray to 8-bit; Pillow's own conversion clips at 255, which turns an image white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise UnreadableImageError("32-bit integer pixels have no agreed range; save it as 8-bit or 16-bit")
    return Image.fromarray((values // 257).astype(np.uint8))


def eval_transform(image: Image.Image, size: int, grayscale: bool) -> NDArray[np.uint8]:
    """Apply the evaluation transform: center crop, optional grayscale, resize.

    The largest centered square is cropped, converted to luma if `grayscale`, and resized with an antialiased bilinear
    filter. Validation, test, prediction and the pixel cache all use this function, so that they can't drift apart.

    Args:
        image: An RGB image from `read_image`.
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


def reread_image(path: Path) -> Image.Image:
    """Decode an image that was readable when the folder was indexed.

    Raises:
        FaultError: It is no longer readable.
    """
    try:
        return read_image(path)
    except UnreadableImageError as error:
        raise SystemFaultError(
            f"{path} was readable when it was indexed and no longer is ({error}): put it back, or start again"
        ) from None


def decode_into(
    array: Path, start: int, folder: Path, size: int, grayscale: bool, items: Sequence[tuple[int, str]]
) -> list[int]:
    """Decode images into rows of an array on disk; several processes may fill different rows at once.

    Args:
        array: File of the array.
        start: Offset of the array in the file, in bytes.
        folder: Folder of the images.
        size: Side of the square images in pixels.
        grayscale: One channel instead of three.
        items: Rows of the array, each with the name of its image.

    Returns:
        The rows that were written.

    Raises:
        AgeGenderError: An image can't be read.
        OSError: The array can't be written.
    """
    with array.open("r+b") as file:
        for row, name in items:
            pixels = _to_square(reread_image(folder / name), size, grayscale).tobytes()  # the bytes of `eval_transform`
            file.seek(start + row * len(pixels))
            file.write(pixels)
    return [row for row, _ in items]
