"""Frames of a video or of the camera, one every so many seconds."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from typing import Any

from PIL import Image

from agegender.data.decode import ImageSource, UnreadableImageError
from agegender.errors import AgeGenderError, missing_package
from agegender.overrides import ADDRESS
from agegender.prediction.sources import Picture

SUFFIXES = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))
WEBCAM = "webcam"


def frames(name: str, every: float) -> Iterator[Picture]:
    """Yields frames, the first one first, by the name `video.mp4#t=2.50`: a media fragment, in seconds (W3C, 2012).

    A video that can't be opened is one picture without an answer.

    Args:
        name: A video file, or `webcam` for the first camera, which Ctrl-C ends.
        every: Seconds from one frame to the next.

    Raises:
        AgeGenderError: OpenCV is missing, or there is no camera.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_package(f"img={name}", error, "faces") from None
    _silence(cv2)
    if name != WEBCAM and (reason := _unusable(name)):
        yield Picture(name, lambda: _refuse(reason))
        return
    video = cv2.VideoCapture(0 if name == WEBCAM else name)
    try:
        if not video.isOpened():
            if name == WEBCAM:
                raise AgeGenderError("img=webcam: no camera can be opened here")
            yield Picture(name, lambda: _refuse("not a video that can be read"))
            return
        yield from _live(video, every) if name == WEBCAM else _recorded(cv2, video, name, every)
    finally:
        video.release()


def _silence(cv2: Any) -> None:
    """Keeps OpenCV, and FFmpeg in it, from reporting on standard error what the row says already."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # 4.14 knows only the second of its names
    silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    silence(0)


def _unusable(name: str) -> str | None:
    if name.startswith(ADDRESS):
        return "a video at an address: download it first"
    if not os.path.isfile(name):  # Path raises on a name that is too long
        return "no such file"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "OpenCV opens no file whose name isn't UTF-8: rename it"  # its bindings crash on one
    return None


def _recorded(cv2: Any, video: Any, name: str, every: float) -> Iterator[Picture]:
    rate = video.get(cv2.CAP_PROP_FPS)
    rate = rate if math.isfinite(rate) and rate > 0 else 25.0
    seconds, due = -1.0, 0.0
    for number in itertools.count():
        if not video.grab():
            break
        told = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # phones and screen recorders don't keep to one rate
        seconds = told if told > seconds else max(seconds, number / rate)  # but not every file tells its times
        if seconds + 1e-9 < due:
            continue
        there, pixels = video.retrieve()
        if not there:
            break
        yield _frame(f"{name}#t={seconds:.2f}", pixels)
        due = seconds + every - (seconds + 1e-9) % every  # the next multiple, even after a frame that lasted longer
    if not due:
        yield Picture(name, lambda: _refuse("a video without frames"))


def _live(video: Any, every: float) -> Iterator[Picture]:
    start = time.monotonic()
    for number in itertools.count():
        try:
            while time.monotonic() - start < number * every:
                video.grab()  # what the camera has buffered meanwhile is old
            there, pixels = video.read()
        except KeyboardInterrupt:
            return  # its end: what was answered is shown or written
        if not there:
            return
        yield _frame(f"{WEBCAM}#t={time.monotonic() - start:.2f}", pixels)


def _frame(name: str, pixels: Any) -> Picture:
    picture = Image.fromarray(pixels[:, :, ::-1].copy())  # OpenCV's order of colours
    return Picture(name, lambda: picture, decoded=True)


def _refuse(reason: str) -> ImageSource:
    raise UnreadableImageError(reason)
