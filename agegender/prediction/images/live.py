"""Frames of a camera, and of a stream in the network, as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from agegender.config.overrides import ADDRESS, STREAM_ADDRESS, WEBCAM
from agegender.errors import AgeGenderError
from agegender.prediction.images.sources import NamedImage, frame_name
from agegender.prediction.images.video import as_frame, frame_rate, import_opencv

_STREAM_SUFFIXES = (".mjpg", ".mjpeg", ".m3u8")  # of http addresses: Motion JPEG, and HTTP Live Streaming


class LiveStream(str):
    """A source without an end: `webcam` or a camera's number, or the address of a stream.

    A plain `str` of the same value is a file name.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, name: str) -> LiveStream | None:
        """Return the stream of this name; None if it is a file's or an image's."""
        path = name.split("?")[0].lower()
        is_stream = name.startswith(STREAM_ADDRESS) or (name.startswith(ADDRESS) and path.endswith(_STREAM_SUFFIXES))
        return cls(name) if is_stream or name == WEBCAM or re.fullmatch("[0-9]{1,3}", name) else None

    @property
    def public_name(self) -> str:
        """The name without user and password, for rows and messages."""
        return re.sub(r"(?<=://)[^/@]*@", "", self)


def live_frames(stream: LiveStream, frame_interval: float) -> Iterator[NamedImage]:
    """Yield frames until the stream ends, or Ctrl-C; those that come in between are dropped.

    Their names have the seconds since the first frame.

    Args:
        stream: The camera or the stream.
        frame_interval: Least number of seconds between frames.

    Raises:
        AgeGenderError: OpenCV is missing, or the camera or stream can't be opened.
    """
    name = stream.public_name
    cv2 = import_opencv(f"img={name}")
    is_camera = stream == WEBCAM or stream.isdecimal()
    video = cv2.VideoCapture((0 if stream == WEBCAM else int(stream)) if is_camera else str(stream))
    try:
        if not video.isOpened():
            what = "no camera can be opened here" if is_camera else "no stream can be opened there"
            raise AgeGenderError(f"img={name}: {what}")
        rate = frame_rate(cv2, video)
        last = due = time.monotonic()
        start: float | None = None  # of the first frame
        while True:
            _drop_buffered(video, rate, time.monotonic() - last)
            while time.monotonic() < due:
                video.grab()
            there, pixels = video.read()
            if not there:
                return
            last = time.monotonic()
            start, due = last if start is None else start, max(due + frame_interval, last)
            yield as_frame(frame_name(name, last - start), pixels)
    except KeyboardInterrupt:
        return  # ends the stream; the predictions so far are printed or written
    finally:
        video.release()


def _drop_buffered(video: Any, rate: float, seconds: float) -> None:
    """Drop the frames that came in the last seconds, as long as they are there without waiting."""
    for _ in range(int(seconds * rate)):
        before = time.monotonic()
        if not video.grab() or time.monotonic() - before > 0.5 / rate:
            return
