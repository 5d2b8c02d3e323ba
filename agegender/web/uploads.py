"""Pictures come in over HTTP: into memory only, and none beyond the limits."""

from __future__ import annotations

import asyncio
import io
import sys
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache

import python_multipart  # noqa: F401  # which Starlette asks for at the first form only
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

FIELD = "file"
_FORM = "multipart/form-data"
_AROUND_A_FILE = 64 << 10  # bytes that a form may have beside it
_MOST_PARTS = 16
# Decoders that work in memory and know a picture's size before they decode it. Pillow has others that start programs
# (EPS) or whose stated size is not the picture's (ICO).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class Limits:
    """What is taken.

    Attributes:
        size: Of a file, in bytes.
        pixels: Of a picture.
        seconds: Within which an upload must have arrived.
    """

    size: int
    pixels: int
    seconds: float


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # Starlette puts what is larger than this on the disk


async def receive(request: Request, limits: Limits) -> bytes:
    """Returns the file that a request brings: its body, or the field `file` of a form (multipart/form-data, RFC 7578).

    Raises:
        HTTPException: It is too large or too slow, or there is no such field.
        starlette.requests.ClientDisconnect: The client went away.
    """
    in_form = request.headers.get("content-type", "").lower().startswith(_FORM)
    largest = limits.size + (_AROUND_A_FILE if in_form else 0)
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > largest:
        raise _too_large(limits)
    chunks = _chunks(request, largest, limits)
    try:
        async with asyncio.timeout(limits.seconds):
            content = await _file_of_form(request, chunks) if in_form else b"".join([chunk async for chunk in chunks])
    except TimeoutError:
        late = f"the upload took longer than {limits.seconds:g} seconds"
        raise HTTPException(408, late, {"Connection": "close"}) from None
    if len(content) > limits.size:
        raise _too_large(limits)
    return content


async def _chunks(request: Request, largest: int, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > largest:
            raise _too_large(limits)
        yield chunk


async def _file_of_form(request: Request, chunks: AsyncGenerator[bytes, None]) -> bytes:
    parser = _InMemory(request.headers, chunks, max_files=1, max_fields=_MOST_PARTS, max_part_size=_AROUND_A_FILE)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form is broken: {error.message}") from None
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise HTTPException(400, f'the form has no file in a field "{FIELD}"')
        return await file.read()
    finally:
        await form.close()


def check(content: bytes, limits: Limits) -> None:
    """Refuses what may not be decoded; for a thread in which time may pass.

    Raises:
        HTTPException: It is empty, no picture, or one of too many pixels.
    """
    if not content:
        raise HTTPException(422, "the file is empty")
    pixels = _pixels(content)
    if pixels > limits.pixels:
        had = "" if pixels == float("inf") else f"{pixels / 1e6:,.1f} megapixels; "
        raise HTTPException(413, f"too many pixels: {had}the limit is {limits.pixels / 1e6:g} megapixels")


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"too large: the limit is {limits.size / 1e6:g} MB")


def _pixels(content: bytes) -> float:
    """Reads how many pixels a picture has from its header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF and of many pixels; here they are refused
            with Image.open(io.BytesIO(content), formats=_formats()) as picture:
                return float(picture.width * picture.height)
    except Image.DecompressionBombError:  # Pillow's own limit comes first
        return float("inf")
    except UnidentifiedImageError:
        raise HTTPException(422, "not a picture that can be read") from None
    except Exception:  # a damaged file: the decoder, which comes next, says what is wrong with it
        return 0.0


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
