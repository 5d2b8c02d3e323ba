"""Uploads over HTTP: read into memory only, within the limits of size, pixels and time."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cache

import python_multipart  # noqa: F401  # Starlette imports it at the first form; here a missing package is noticed at the start
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

FIELD = "file"
MAX_FILES = 16  # in one request
_FORM, _JSON = "multipart/form-data", "application/json"
_OVERHEAD = 64 << 10  # maximum number of bytes of a form or of JSON in addition to the files
_MAX_FIELDS = 16
# Formats whose decoders work in memory and read the size of an image before decoding. Others of Pillow's decoders start
# programs (EPS) or have another size in the header (ICO).
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class Limits:
    """Limits of an upload.

    Attributes:
        size: Maximum size of the files of a request in bytes.
        pixels: Maximum number of pixels of the image.
        seconds: Time limit of the upload in seconds.
        total: Maximum size of all uploads that the server holds, in bytes.
        answer_seconds: Time limit from the end of the upload to the response in seconds.
    """

    size: int
    pixels: int
    seconds: float
    total: int
    answer_seconds: float = 60.0


@dataclass(frozen=True)
class Upload:
    """The files of a request.

    Attributes:
        files: Their contents.
        is_list: Whether the response is a list.
    """

    files: list[bytes]
    is_list: bool


class _InMemoryParser(MultiPartParser):
    spool_max_size = sys.maxsize  # Starlette writes larger files to the disk


def declared_size(request: Request, limits: Limits) -> int:
    """Return the number of bytes to reserve for an upload: its `Content-Length`, or the limit if it has none."""
    length = request.headers.get("content-length", "")
    return min(int(length), limits.size) if length.isdecimal() else limits.size


async def receive(request: Request, limits: Limits) -> Upload:
    """Return the files of a request, by its `Content-Type`.

    `multipart/form-data` (RFC 7578): the fields `file`. `application/json`: `{"image": base64}`, or a list as
    `{"images": [base64, ...]}`. Any other type: the body is the file.

    Raises:
        HTTPException: The upload is too large or too slow, or the form or the JSON is invalid.
        starlette.requests.ClientDisconnect: The client disconnected.
    """
    kind = request.headers.get("content-type", "").lower()
    is_form, is_json = kind.startswith(_FORM), kind.startswith(_JSON)
    max_bytes = limits.size * (4 if is_json else 3) // 3 + (_OVERHEAD if is_form or is_json else 0)
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and int(content_length) > max_bytes:
        raise _too_large(limits)
    chunks = _chunks(request, max_bytes, limits)
    try:
        async with asyncio.timeout(limits.seconds):
            if is_form:
                upload = await _files_of_form(request, chunks)
            else:
                body = b"".join([chunk async for chunk in chunks])
                upload = _files_of_json(body) if is_json else Upload([body], False)
    except TimeoutError:
        message = f"the upload took longer than {limits.seconds:g} seconds"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    if sum(map(len, upload.files)) > limits.size:
        raise _too_large(limits)
    return upload


async def _chunks(request: Request, max_bytes: int, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(limits)
        yield chunk


async def _files_of_form(request: Request, chunks: AsyncGenerator[bytes, None]) -> Upload:
    parser = _InMemoryParser(
        request.headers, chunks, max_files=MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_OVERHEAD
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form is invalid: {error.message}") from None
    try:
        names = {name for name, value in form.multi_items() if isinstance(value, UploadFile)}
        if FIELD not in names:
            raise HTTPException(400, f'the form has no file in the field "{FIELD}"')
        if len(names) > 1:
            raise HTTPException(400, f'the form has files in other fields than "{FIELD}"')
        files = [await file.read() for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
        return Upload(files, len(files) > 1)
    finally:
        await form.close()


def _files_of_json(body: bytes) -> Upload:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the JSON is invalid") from None
    match content:
        case {"image": str(text), **others} if not others:
            return Upload([_decode(text)], False)
        case {"images": [*texts], **others} if not others and 0 < len(texts) <= MAX_FILES:
            return Upload([_decode(text) for text in texts], True)
    raise HTTPException(400, f'the JSON must be {{"image": base64}} or {{"images": [base64, ...]}}, up to {MAX_FILES}')


def _decode(text: object) -> bytes:
    try:
        if isinstance(text, str):
            encoded = text.rpartition(",")[2] if text.startswith("data:") else text
            return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        pass
    raise HTTPException(400, "an image of the JSON is not in base64")


def check(content: bytes, limits: Limits) -> None:
    """Check an upload before it is decoded; blocks, so it must run in a thread.

    Raises:
        HTTPException: The file is empty or not an image, or the image has too many pixels.
    """
    if not content:
        raise HTTPException(422, "the file is empty")
    pixels = _pixels(content)
    if pixels > limits.pixels:
        size = "" if pixels == float("inf") else f"{pixels / 1e6:,.1f} megapixels; "
        raise HTTPException(413, f"too many pixels: {size}the limit is {limits.pixels / 1e6:g} megapixels")


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"too large: the limit is {limits.size / 1e6:g} MB")


def _pixels(content: bytes) -> float:
    """Return the number of pixels in the header of an image; infinity beyond Pillow's own limit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF, and many pixels, which are limited here
            with Image.open(io.BytesIO(content), formats=_formats()) as image:
                return float(image.width * image.height)
    except Image.DecompressionBombError:  # above Pillow's own limit
        return float("inf")
    except UnidentifiedImageError:
        raise HTTPException(422, "not a picture that can be read") from None
    except Exception:  # a damaged file: decoding, the next step, raises the specific error
        return 0.0


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
