"""Sources of images: files, URLs, bytes, arrays, tensors and video frames."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.config.overrides import ADDRESS
from agegender.data.decode import ImageSource, UnreadableImageError
from agegender.errors import require
from agegender.prediction.faces.given import GivenFace, parse_faces

if TYPE_CHECKING:
    import torch

ImageInput = Union[ImageSource, NDArray[Any], "torch.Tensor"]
Color = Literal["rgb", "bgr"]  # the order of the channels of arrays and tensors
_LARGEST_DOWNLOAD = 64 << 20  # bytes
_PATIENCE = 20  # seconds without a byte
_LONGEST_DOWNLOAD = 120  # seconds from the request to the last byte


@dataclass(frozen=True)
class NamedImage:
    """A named image that is read lazily.

    Attributes:
        path: The name.
        read: Returns a source for `data.decode.read_image`, or raises `UnreadableImageError`.
        decoded: Whether the pixels are in memory already, so that only few should be queued.
        faces: The faces that another detector found; None to detect them.
    """

    path: str
    read: Callable[[], ImageSource]
    decoded: bool = False
    faces: Sequence[GivenFace] | None = None


def _none() -> ImageSource:
    raise UnreadableImageError("a pause, not an image")


FLUSH = NamedImage("", _none)  # marks a possible wait in a stream of images; gets no prediction


def frame_name(video: str, seconds: float) -> str:
    """Return the name of a frame: `video.mp4#t=2.50`, a media fragment in seconds (W3C, "Media Fragments", 2012)."""
    return f"{video}#t={seconds:.2f}"


def split_frame_name(path: str) -> tuple[str, float] | None:
    """Return the video and the time in seconds of a frame, by its name; None for the name of another image."""
    found = re.fullmatch(r"(.+)#t=([0-9]+\.[0-9]{2})", path, re.DOTALL)
    return (found[1], float(found[2])) if found else None


def file_stamp(path: str) -> str | None:
    """Return the size and the time of change of the file behind the name of an image or frame; None without a file."""
    for name in (path, path.rpartition("#t=")[0]):
        try:
            status = os.stat(name)
        except (OSError, ValueError):  # a name with a NUL
            continue
        return f"{status.st_size}-{status.st_mtime_ns}"
    return None


def wrong_type(source: object) -> str | None:
    """Return why an object of this type can't be an image; None if it can."""
    types = str | Path | bytes | Image.Image | np.ndarray | NamedImage
    if isinstance(source, types) or hasattr(source, "read") or hasattr(source, "detach"):
        return None
    return f"a {type(source).__name__} is not an image: give a path, bytes, a Pillow image or an array"


def is_one_image(images: object) -> bool:
    """Return whether an argument for images is a single one, which may itself be iterable, such as a path or an array.

    A 4-dimensional array or tensor is a batch, and a 1-dimensional one of texts a list of paths.
    """
    return wrong_type(images) is None and getattr(images, "ndim", 0) not in (1, 4)


def as_named_image(source: ImageInput | NamedImage, color: Color = "rgb") -> NamedImage:
    """Return an image with its path or URL as its name, or its type for one in memory.

    Reading an object of another type raises `UnreadableImageError`.
    """
    if isinstance(source, NamedImage):
        return source
    if isinstance(source, str) and source.startswith(ADDRESS):
        return NamedImage(source, lambda: download(source))
    if isinstance(source, str | Path):
        return NamedImage(str(source), lambda: source)
    name = f"<{type(source).__name__}>"
    if isinstance(source, bytes | Image.Image) or hasattr(source, "read"):
        known: Any = source
        return NamedImage(name, lambda: known)
    return NamedImage(name, lambda: _from_array(source, color))


def attach_faces(
    images: Sequence[ImageInput], boxes: Any, landmarks: Any, color: Color
) -> Sequence[ImageInput | NamedImage]:
    """Return images with the faces that another detector found.

    Args:
        images: The images.
        boxes: For each image its boxes, see `given.parse_faces`; None for none.
        landmarks: Likewise.
        color: See `as_named_image`.

    Raises:
        AgeGenderError: There are boxes or landmarks for more or fewer images, or they are invalid.
    """
    given = [each for each in (boxes, landmarks) if each is not None]
    if not given:
        return images
    fits = all(len(each) == len(images) for each in given)
    require(fits, f"boxes and landmarks must be lists with an entry for each of the {len(images)} images")
    of_image = zip(*([None] * len(images) if each is None else each for each in (boxes, landmarks)), strict=True)
    return [
        replace(as_named_image(image, color), faces=parse_faces(*faces))
        for image, faces in zip(images, of_image, strict=True)
    ]


def _from_array(source: Any, color: Color) -> Image.Image:
    values = source
    if reason := wrong_type(source):
        raise UnreadableImageError(reason)
    if not isinstance(values, np.ndarray):
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
            "[height, width, 3], or a tensor [3, height, width]"
        )
    if color == "bgr" and values.ndim == 3:
        values = values[:, :, ::-1]
    return Image.fromarray(np.ascontiguousarray(values))


def _from_shares(values: NDArray[Any]) -> NDArray[np.uint8]:
    # bicubic resizing goes a little beyond 0 and 1; values far outside have another scale
    if not np.all((values > -0.5) & (values < 1.5)):
        raise UnreadableImageError("a tensor of floats must lie between 0 and 1")
    pixels: NDArray[np.uint8] = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    return pixels


def download(address: str) -> bytes:
    """Fetches a picture over http(s), redirects included.

    Raises:
        UnreadableImageError: It can't be fetched, or not in time, or it is larger than 64 MiB.
    """
    try:
        import requests  # a tenth of a second that files don't need
        import urllib3
    except ImportError as error:  # in an installation without PyTorch, see docs/light.md
        raise UnreadableImageError(f"addresses need a package that is missing: pip install {error.name}") from None

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
    """Return the innermost reason in an error of requests, which wraps urllib3's, which wraps the system's."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).rsplit(": ", 1)[-1]


def _short(reason: object) -> str:
    """Servers say what they like, at any length."""
    return " ".join(str(reason).split())[:120]
