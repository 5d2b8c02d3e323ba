"""Frames of a video file or of the camera at a fixed interval."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from typing import Any

from PIL import Image

from agegender.config.overrides import ADDRESS
from agegender.data.decode import ImageSource, UnreadableImageError
from agegender.errors import AgeGenderError, missing_extra
from agegender.prediction.images.sources import NamedImage

# Files of FFmpeg's demuxers, which OpenCV opens.
_CONTAINERS = """
    .mp4 .m4v .mov .qt .mj2 .ismv .3gp .3g2 .f4v .flv .avi .divx .mkv .webm .wmv .asf .wtv .mpg .mpeg .mpe .mpv .m1v
    .m2v .vob .mod .tod .ts .tp .trp .mts .m2ts .m2t .ogv .ogm .ogg .rm .rmvb .mxf .gxf .dv .nut .ivf .amv .swf
    .mjpeg .mjpg .y4m .264 .h264 .265 .h265 .hevc .lrv .insv
"""
SUFFIXES = frozenset(_CONTAINERS.split())
WEBCAM = "webcam"


def frames(name: str, frame_interval: float) -> Iterator[NamedImage]:
    """Yield frames in order, named like `video.mp4#t=2.50`: a media fragment in seconds (W3C, "Media Fragments", 2012).

    A video that can't be opened yields one image whose reading raises `UnreadableImageError`.

    Args:
        name: A video file, or `webcam` for the first camera, which is read until Ctrl-C.
        frame_interval: Seconds between frames.

    Raises:
        AgeGenderError: OpenCV is missing, or no camera can be opened.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_extra(f"img={name}", error, "faces") from None
    _silence(cv2)
    if name != WEBCAM and (reason := _unusable(name)):
        yield NamedImage(name, lambda: _refuse(reason))
        return
    video = cv2.VideoCapture(0 if name == WEBCAM else name)
    try:
        if not video.isOpened():
            if name == WEBCAM:
                raise AgeGenderError("img=webcam: no camera can be opened here")
            yield NamedImage(name, lambda: _refuse("not a video that can be read"))
            return
        yield from _live(video, frame_interval) if name == WEBCAM else _recorded(cv2, video, name, frame_interval)
    finally:
        video.release()


def _silence(cv2: Any) -> None:
    """Turn off the logs of OpenCV and its FFmpeg on standard error; the error is in the row."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # OpenCV 4.14 has only the second of these names
    silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    silence(0)


def _unusable(name: str) -> str | None:
    if name.startswith(ADDRESS):
        return "videos at a URL are not supported: download it first"
    if not os.path.isfile(name):  # Path raises for a name that is too long
        return "no such file"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "OpenCV can't open a file whose name isn't UTF-8: rename it"  # its bindings would crash
    return None


def _recorded(cv2: Any, video: Any, name: str, frame_interval: float) -> Iterator[NamedImage]:
    rate = video.get(cv2.CAP_PROP_FPS)
    rate = rate if math.isfinite(rate) and rate > 0 else 25.0
    seconds, due = -1.0, 0.0
    for number in itertools.count():
        if not video.grab():
            break
        stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # phones and screen recorders have a variable frame rate
        seconds = stamp if stamp > seconds else max(seconds, number / rate)  # but not every file has time stamps
        if seconds + 1e-9 < due:
            continue
        there, pixels = video.retrieve()
        if not there:
            break
        yield _frame(f"{name}#t={seconds:.2f}", pixels)
        due = (
            seconds + frame_interval - (seconds + 1e-9) % frame_interval
        )  # the next multiple of `every`, even if a frame lasts longer
    if not due:
        yield NamedImage(name, lambda: _refuse("a video without frames"))


def _live(video: Any, frame_interval: float) -> Iterator[NamedImage]:
    start = time.monotonic()
    for number in itertools.count():
        try:
            while time.monotonic() - start < number * frame_interval:
                video.grab()  # discard buffered frames
            there, pixels = video.read()
        except KeyboardInterrupt:
            return  # ends the stream; the predictions so far are printed or written
        if not there:
            return
        yield _frame(f"{WEBCAM}#t={time.monotonic() - start:.2f}", pixels)


def _frame(name: str, pixels: Any) -> NamedImage:
    picture = Image.fromarray(pixels[:, :, ::-1].copy())  # OpenCV's BGR to RGB
    return NamedImage(name, lambda: picture, decoded=True)


def _refuse(reason: str) -> ImageSource:
    raise UnreadableImageError(reason)
