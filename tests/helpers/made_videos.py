"""Video files made of drawn faces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

cv2 = pytest.importorskip("cv2")

RATE = 10


def write_video(path: Path, codec: str, pictures: Sequence[NDArray[np.uint8]], rate: float = RATE) -> None:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (width, height))
    if not writer.isOpened():
        pytest.skip(f"OpenCV writes no {codec} here")
    for picture in pictures:
        writer.write(picture[:, :, ::-1].copy())
    writer.release()


def write_varying(path: Path, milliseconds: Sequence[int]) -> None:
    """Writes frames of rising brightness with these timestamps into a file that declares 10 frames a second."""
    write_video(path, "MJPG", [np.full((64, 64, 3), 20 * number, np.uint8) for number in range(len(milliseconds))])
    block = re.compile(rb"\x81(..)(?=\x80\xff\xd8)", re.DOTALL)  # Matroska stores a frame's timestamp before it
    content = path.read_bytes()
    assert [int.from_bytes(time) for time in block.findall(content)] == [100 * n for n in range(len(milliseconds))]
    times = iter(milliseconds)
    path.write_bytes(block.sub(lambda _: b"\x81" + next(times).to_bytes(2), content))


def crossing(faces: Path, count: int = 21) -> list[NDArray[np.uint8]]:
    """Returns frames of 320 x 240 pixels in which two people cross, the upper one from the left; with noise."""
    random = np.random.default_rng(0)
    upper, lower = (Image.open(next(faces.glob(name))).convert("RGB").resize((90, 90)) for name in ("28_*", "5[0-9]_*"))
    frames = []
    for frame in range(count):
        picture = Image.new("RGB", (320, 240), (90, 120, 90))
        picture.paste(lower, (220 - 210 * frame // (count - 1), 125))
        picture.paste(upper, (10 + 210 * frame // (count - 1), 20))
        noisy = np.asarray(picture) + random.normal(0, 6, (240, 320, 3))
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return frames


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    """Returns the frames of a video file in RGB."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1][:, :, ::-1])
    video.release()
    return frames
