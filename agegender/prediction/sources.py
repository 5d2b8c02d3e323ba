"""Sources of images: files, URLs, bytes, arrays, tensors and video frames."""

from __future__ import annotations

import io
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import ImageSource, UnreadableImageError

if TYPE_CHECKING:
    import torch

PictureSource = Union[ImageSource, NDArray[Any], "torch.Tensor"]
ADDRESS = ("http://", "https://")
_LARGEST_DOWNLOAD = 64 << 20  # bytes
_PATIENCE = 20  # seconds without a byte
_LONGEST_DOWNLOAD = 120  # seconds from the request to the last byte


@dataclass(frozen=True)
class Picture:
    """A named image that is read lazily.

    Attributes:
        path: The name.
        read: Returns a source for `data.decode.read_image`, or raises `UnreadableImageError`.
        decoded: Whether the pixels are in memory already, so that only few should be queued.
    """

    path: str
    read: Callable[[], ImageSource]
    decoded: bool = False


def _none() -> ImageSource:
    raise UnreadableImageError("a pause, not an image")


PAUSE = Picture("", _none)  # marks a possible wait in a stream of images; gets no prediction


def named(source: PictureSource | Picture) -> Picture:
    """Return an image with its path or URL as its name, or its type for one in memory."""
    if isinstance(source, Picture):
        return source
    if isinstance(source, str) and source.startswith(ADDRESS):
        return Picture(source, lambda: download(source))
    if isinstance(source, str | Path):
        return Picture(str(source), lambda: source)
    name = f"<{type(source).__name__}>"
    if isinstance(source, bytes | Image.Image) or hasattr(source, "read"):
        known: Any = source
        return Picture(name, lambda: known)
    return Picture(name, lambda: _from_array(source))


def _from_array(source: Any) -> Image.Image:
    values = source
    if not isinstance(values, np.ndarray):
        if not hasattr(values, "detach"):
            raise TypeError(
                f"a {type(source).__name__} is not an image: give a path, bytes, a Pillow image or an array"
            )
        if values.ndim == 3:
            values = values.permute(1, 2, 0)  # channels first, as in torchvision
        try:
            values = values.detach()
            values = (values.float() if values.is_floating_point() else values).cpu().numpy()
        except (RuntimeError, TypeError) as error:  # sparse, on the meta device, of a type that NumPy lacks, ...
            reason = str(error).split("\n")[0][:120]
            raise UnreadableImageError(f"a tensor that can't be converted to an array ({reason})") from None
        if values.dtype.kind == "f":
            values = _from_shares(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    fits = values.dtype == np.uint8 and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3))
    if not fits or 0 in values.shape:
        raise UnreadableImageError(
            f"an array of {values.dtype} {list(values.shape)} is not an image: give uint8 [height, width] or "
            "[height, width, 3] in RGB, or a tensor [3, height, width]"
        )
    return Image.fromarray(np.ascontiguousarray(values))


def _from_shares(values: NDArray[Any]) -> NDArray[np.uint8]:
    # bicubic resizing goes a little beyond 0 and 1; values far outside have another scale
    if not np.all((values > -0.5) & (values < 1.5)):
        raise UnreadableImageError("a tensor of floats must lie between 0 and 1")
    pixels: NDArray[np.uint8] = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return pixels


class _OverTheWeb(urllib.request.HTTPRedirectHandler):
    """Follows to other http(s) addresses only: urllib itself would go on to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        onward = super().redirect_request(req, fp, code, msg, headers, newurl)
        if onward is not None and onward.type not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, f"to {onward.type}:, which is not followed", headers, fp)
        return onward


class _Reader(io.RawIOBase):
    """Reads from a connection while there is time; a byte now and then would outlast any patience with each."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, until: float):
        self._raw, self._connection, self._until = raw, connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(min(_PATIENCE, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Timely(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that end at a given time, headers and redirects included."""

    def __init__(self, until: float):
        super().__init__()

        class Response(HTTPResponse):
            def __init__(self, sock: socket.socket, *args: Any, **options: Any):
                super().__init__(sock, *args, **options)
                self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, until))

        self._response = Response

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self._connect, HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self._connect, HTTPSConnection), req)

    def _connect(self, kind: type[HTTPConnection], *args: Any, **options: Any) -> HTTPConnection:
        connection = kind(*args, **options)
        connection.response_class = self._response
        return connection


def download(address: str) -> bytes:
    """Fetches a picture.

    Raises:
        UnreadableImageError: It can't be fetched, or not in time, or it is larger than 64 MiB.
    """
    in_time = _Timely(time.monotonic() + _LONGEST_DOWNLOAD)
    try:
        # as a browser shows it, an address may hold spaces and letters of any language
        plain = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
        request = urllib.request.Request(plain, headers={"User-Agent": "agegender"})
        with urllib.request.build_opener(_OverTheWeb, in_time).open(request, timeout=_PATIENCE) as answer:
            content: bytes = answer.read(_LARGEST_DOWNLOAD + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnreadableImageError(f"the server answers {error.code} {_short(error.reason)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreadableImageError(f"can't be fetched ({_short(reason)})") from None
    except Exception as error:  # http.client's own errors, of a server that speaks something else
        raise UnreadableImageError(f"can't be fetched ({type(error).__name__})") from None
    if len(content) > _LARGEST_DOWNLOAD:
        raise UnreadableImageError(f"larger than {_LARGEST_DOWNLOAD >> 20} MiB")
    return content


def _short(reason: object) -> str:
    """Servers say what they like, at any length."""
    return " ".join(str(reason).split())[:120]
