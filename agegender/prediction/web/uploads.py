"""Pictures come in over HTTP: into memory only, and never more than there is room for."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

from PIL import Image, UnidentifiedImageError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from agegender.data.decode import UnreadableImageError
from agegender.prediction.web.form import file_of_form
from agegender.prediction.web.refused import RefusedError, busy

_AROUND_A_FILE = 64 << 10  # bytes that a form may have beside it
_TOGETHER = 16  # uploads of the largest size that may be held at the same moment
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


class Upload:
    """A file that arrived and was not looked at yet.

    Attributes:
        refused: Why `read` failed, if it did.
    """

    def __init__(self, body: bytes, boundary: bytes | None, limits: Limits):
        """Keeps what arrived.

        Args:
            body: Of the request.
            boundary: Between the parts of a form; None if the body is the file itself.
            limits: What is taken.
        """
        self._body, self._boundary, self._limits = body, boundary, limits
        self.refused: RefusedError | None = None

    def read(self) -> bytes:
        """Returns the file, if it is a picture that may be decoded; for a thread in which time may pass.

        Raises:
            UnreadableImageError: It may not; `refused` has the details.
        """
        try:
            content = self._body if self._boundary is None else file_of_form(self._body, self._boundary)
            self._check(content)
        except RefusedError as error:
            self.refused = error
            raise UnreadableImageError(str(error)) from None
        return content

    def _check(self, content: bytes) -> None:
        if len(content) > self._limits.size:
            raise too_large(self._limits)
        if not content:
            raise RefusedError(422, "the file is empty")
        pixels = _pixels(content)
        if pixels > self._limits.pixels:
            had = "" if pixels == float("inf") else f"{pixels / 1e6:,.1f} megapixels; "
            raise RefusedError(413, f"too many pixels: {had}the limit is {self._limits.pixels / 1e6:g} megapixels")


def too_large(limits: Limits) -> RefusedError:
    """Returns what is said to a file that is too large."""
    return RefusedError(413, f"too large: the limit is {limits.size / 1e6:g} MB")


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
        raise RefusedError(422, "not a picture that can be read") from None
    except Exception:  # a damaged file: the decoder, which comes next, says what is wrong with it
        return 0.0


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@dataclass
class _Share:
    """How many bytes of all that are held belong to one upload."""

    size: int = 0


class Uploads:
    """Receives files, each within the limits, and all at the same moment within some times the largest."""

    def __init__(self, limits: Limits):
        """Starts with nothing."""
        self.limits = limits
        self._held = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Upload]:
        """Reads a request's body; what it holds counts until the context ends.

        Raises:
            RefusedError: It is too large or too slow, or there is no room.
            starlette.requests.ClientDisconnect: The client went away.
        """
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"") if kind == b"multipart/form-data" else None
        if boundary == b"":
            raise RefusedError(400, "a form without a boundary")
        largest = self.limits.size + (0 if boundary is None else _AROUND_A_FILE)
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > largest:
            raise too_large(self.limits)
        share = _Share()
        try:
            yield Upload(await self._body(request, largest, share), boundary, self.limits)
        finally:
            self._held -= share.size

    async def _body(self, request: Request, largest: int, share: _Share) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > largest:
                        raise too_large(self.limits)
                    if self._held + len(chunk) > _TOGETHER * self.limits.size:
                        raise busy()
                    self._held += len(chunk)
                    share.size += len(chunk)
                    body += chunk
        except TimeoutError:
            late = f"the upload took longer than {self.limits.seconds:g} seconds"
            raise RefusedError(408, late, {"Connection": "close"}) from None
        return bytes(body)
