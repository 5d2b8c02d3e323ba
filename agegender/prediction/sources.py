"""A picture wherever it is: a file, an address, bytes, an array, a tensor, a frame of a video."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import ImageSource, UnreadableImageError
from agegender.overrides import ADDRESS

if TYPE_CHECKING:
    import torch

PictureSource = Union[ImageSource, NDArray[Any], "torch.Tensor"]
_LARGEST_DOWNLOAD = 64 << 20  # bytes
_PATIENCE = 20  # seconds without a byte
_LONGEST_DOWNLOAD = 120  # seconds from the request to the last byte


@dataclass(frozen=True)
class Picture:
    """A picture with a name, read when its turn comes.

    Attributes:
        path: The name.
        read: Returns what `data.decode.read_image` takes; raises `UnreadableImageError` if there is nothing.
        decoded: Its pixels are in memory already: few such should wait.
    """

    path: str
    read: Callable[[], ImageSource]
    decoded: bool = False


def _none() -> ImageSource:
    raise UnreadableImageError("a pause, no picture")


PAUSE = Picture("", _none)  # stands in a stream of pictures where the next may be long in coming; gets no answer


def named(source: PictureSource | Picture) -> Picture:
    """Returns a picture by the name that a person knows it by."""
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
                f"a {type(source).__name__} is no picture: give a path, bytes, a Pillow picture or an array"
            )
        if values.ndim == 3:
            values = values.permute(1, 2, 0)  # torchvision's order, channels first
        try:
            values = values.detach()
            values = (values.float() if values.is_floating_point() else values).cpu().numpy()
        except (RuntimeError, TypeError) as error:  # sparse, on no device, of a type that numpy doesn't know, ...
            reason = str(error).split("\n")[0][:120]
            raise UnreadableImageError(f"a tensor that can't be turned into an array ({reason})") from None
        if values.dtype.kind == "f":
            values = _from_shares(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    fits = values.dtype == np.uint8 and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3))
    if not fits or 0 in values.shape:
        raise UnreadableImageError(
            f"an array of {values.dtype} {list(values.shape)} is no picture: give uint8 [height, width] or "
            "[height, width, 3] in RGB, or a tensor [3, height, width]"
        )
    return Image.fromarray(np.ascontiguousarray(values))


def _from_shares(values: NDArray[Any]) -> NDArray[np.uint8]:
    # a resize with a bicubic filter goes a little beyond 0 and 1; what goes far was scaled otherwise
    if not np.all((values > -0.5) & (values < 1.5)):
        raise UnreadableImageError("a tensor of floats is no picture unless they lie from 0 to 1")
    pixels: NDArray[np.uint8] = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return pixels


def download(address: str) -> bytes:
    """Fetches a picture over http(s), redirects included.

    Raises:
        UnreadableImageError: It can't be fetched, or not in time, or it is larger than 64 MiB.
    """
    import requests  # a tenth of a second that files don't need
    import urllib3

    until = time.monotonic() + _LONGEST_DOWNLOAD
    headers = {"User-Agent": "agegender", "Accept-Encoding": "identity"}
    content = bytearray()
    try:
        with requests.get(address, headers=headers, stream=True, timeout=_PATIENCE) as answer:
            if not answer.ok:
                raise UnreadableImageError(f"the server answers {answer.status_code} {_short(answer.reason)}")
            while part := answer.raw.read1(1 << 16, decode_content=False):
                content += part
                if len(content) > _LARGEST_DOWNLOAD:
                    raise UnreadableImageError(f"larger than {_LARGEST_DOWNLOAD >> 20} MiB")
                if time.monotonic() > until:  # a byte now and then would outlast any patience with each
                    raise UnreadableImageError("can't be fetched (timed out)")
    except UnreadableImageError:
        raise
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise UnreadableImageError("can't be fetched (timed out)") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise UnreadableImageError(f"can't be fetched ({_short(_cause(error))})") from None
    return bytes(content)


def _cause(error: Exception) -> str:
    """Returns the end of what requests says, which wraps what urllib3 says, which wraps what the system says."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).rsplit(": ", 1)[-1]


def _short(reason: object) -> str:
    """Servers say what they like, at any length."""
    return " ".join(str(reason).split())[:120]
