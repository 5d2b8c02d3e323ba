"""Frames of a video file at a fixed interval."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

from PIL import Image

from agegender.config.overrides import ADDRESS
from agegender.data.decode import ImageSource, UnreadableImageError
from agegender.errors import missing_extra
from agegender.prediction.images.sources import NamedImage, frame_name

# Files of FFmpeg's demuxers, which OpenCV opens.
_CONTAINERS = """
    .mp4 .m4v .mov .qt .mj2 .ismv .3gp .3g2 .f4v .flv .avi .divx .mkv .webm .wmv .asf .wtv .mpg .mpeg .mpe .mpv .m1v
    .m2v .vob .mod .tod .ts .tp .trp .mts .m2ts .m2t .ogv .ogm .ogg .rm .rmvb .mxf .gxf .dv .nut .ivf .amv .swf
    .mjpeg .mjpg .y4m .264 .h264 .265 .h265 .hevc .lrv .insv
"""
SUFFIXES = frozenset(_CONTAINERS.split())


def is_video(name: str) -> bool:
    """Return whether a name ends like a video file's."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def frames(name: str, frame_interval: float) -> Iterator[NamedImage]:
    """Yield the frames of a video file in order, with the names of `sources.frame_name`.

    A video that can't be opened yields one image whose reading raises `UnreadableImageError`.

    Args:
        name: The file.
        frame_interval: Seconds between frames.

    Raises:
        AgeGenderError: OpenCV is missing.
    """
    cv2 = import_opencv(f"img={name}")
    if reason := _unusable(name):
        yield NamedImage(name, lambda: _refuse(reason))
        return
    video = cv2.VideoCapture(name)
    try:
        if not video.isOpened():
            yield NamedImage(name, lambda: _refuse("not a video that can be read"))
            return
        due = 0.0
        for seconds in times_of(cv2, video):
            if seconds + 1e-9 < due:
                continue
            there, pixels = video.retrieve()
            if not there:
                break
            yield as_frame(frame_name(name, seconds), pixels)
            # the next multiple of the interval, even if a frame lasts longer
            due = seconds + frame_interval - (seconds + 1e-9) % frame_interval
        if not due:
            yield NamedImage(name, lambda: _refuse("a video without frames"))
    finally:
        video.release()


def import_opencv(need: str) -> Any:
    """Import OpenCV, and turn off its logs and those of its FFmpeg on standard error; the error is in the row.

    Args:
        need: The setting that needs it.

    Raises:
        AgeGenderError: It is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_extra(need, error, "faces") from None
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # OpenCV 4.14 has only the second of these names
    silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    silence(0)
    return cv2


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


def frame_rate(cv2: Any, video: Any) -> float:
    """Return the frames per second that a file declares; 25 if it declares none."""
    rate = float(video.get(cv2.CAP_PROP_FPS))
    return rate if math.isfinite(rate) and rate > 0 else 25.0


def times_of(cv2: Any, video: Any) -> Iterator[float]:
    """Grab the frames of an open video one by one, and yield their times in seconds, which increase."""
    rate, seconds = frame_rate(cv2, video), -1.0
    for number in itertools.count():
        if not video.grab():
            return
        stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000  # phones and screen recorders have a variable frame rate
        seconds = stamp if stamp > seconds else max(seconds, number / rate)  # but not every file has time stamps
        yield seconds


def as_frame(name: str, pixels: Any) -> NamedImage:
    """Return a frame as OpenCV decodes it, in BGR, as an image."""
    picture = Image.fromarray(pixels[:, :, ::-1].copy())
    return NamedImage(name, lambda: picture, decoded=True)


def _refuse(reason: str) -> ImageSource:
    raise UnreadableImageError(reason)
