"""The annotated copy of a video: the box and the estimate of each person in every frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agegender.errors import AgeGenderError, require
from agegender.prediction.images.video import frame_rate, import_opencv, is_video, times_of
from agegender.prediction.prediction import Prediction
from agegender.prediction.tracking.people import Person
from agegender.prediction.writers.annotate import draw
from agegender.system.files import atomic_path
from agegender.tasks.info import TaskInfo

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}  # that OpenCV's wheels bring along
_RATES = (1.0, 240.0)  # frames per second; a file that declares others is damaged
_LONGEST_PAUSE = 60  # seconds that a frame is repeated for: longer ones are cut


def is_video_output(annotate: str) -> bool:
    """Return whether `annotate=` names a video, and not a folder of images."""
    return is_video(annotate) and not Path(annotate).is_dir()


def check_video_output(annotate: str, names: Sequence[str]) -> None:
    """Check that an annotated video can be written, before any work is done.

    Args:
        annotate: The file.
        names: The images, see `listing.list_images`.

    Raises:
        AgeGenderError: The suffix is unknown, the folder doesn't exist, or the images are not one video file.
    """
    path, suffixes = Path(annotate), ", ".join(_CODECS)
    require(path.suffix.lower() in _CODECS, f"annotate={annotate} must end in {suffixes}, or be a folder for images")
    try:
        annotate.encode()
    except UnicodeEncodeError:
        raise AgeGenderError(f"annotate={annotate}: OpenCV can't write a file whose name isn't UTF-8") from None
    require(path.parent.is_dir(), f"annotate={annotate}: the folder {path.parent} does not exist; create it first")
    single = len(names) == 1 and type(names[0]) is str and is_video(names[0])
    require(single, f"annotate={annotate} needs one video file as img=; for others, annotate= is a folder")
    is_same = path.exists() and Path(names[0]).exists() and path.samefile(names[0])
    require(not is_same, f"annotate={annotate} is the video itself: name another file")


def write_annotated_video(
    video: str, out: Path, people: Mapping[int, Person], tasks: Sequence[TaskInfo], frame_interval: float
) -> None:
    """Write a copy of a video, without its sound, with the boxes and estimates of its people; nothing if it is damaged.

    Boxes are interpolated between the frames with predictions, and the estimates are those over all frames. The copy
    has a constant frame rate: frames are repeated or left out where that of the video varies.

    Args:
        video: The video file.
        out: The file to write; it exists only once it is whole.
        people: The people, with their boxes, by their tracks.
        tasks: The predictor's tasks.
        frame_interval: Seconds between frames with predictions. Half as long, boxes are drawn before and after them.

    Raises:
        AgeGenderError: The file can't be written.
    """
    cv2 = import_opencv(f"annotate={out}")
    source = cv2.VideoCapture(video)
    try:
        rate = float(np.clip(frame_rate(cv2, source), *_RATES))
        shown = _annotated(cv2, source, rate, _Labels(video, people, tasks, frame_interval / 2))
        first = next(shown, None)
        if first is None:
            return
        with atomic_path(out, f".partial{out.suffix}") as temporary:
            written = _write(cv2, temporary, itertools.chain([first], shown), rate)
            copy = cv2.VideoCapture(str(temporary))  # OpenCV ignores a full disk
            is_whole = round(copy.get(cv2.CAP_PROP_FRAME_COUNT)) == written
            copy.release()
            require(is_whole, f"can't write annotate={out}: is the disk full?")
    except OSError as error:
        raise AgeGenderError(f"can't write annotate={out} ({error.strerror or error})") from None
    finally:
        source.release()


class _Labels:
    """The boxes and texts of people at a time."""

    def __init__(self, video: str, people: Mapping[int, Person], tasks: Sequence[TaskInfo], hold: float):
        self._people, self._hold, self.tasks = people, hold, tasks
        self._texts = {track: Prediction(video, 1, values=each.values(), track=track) for track, each in people.items()}

    def at(self, seconds: float) -> list[Prediction]:
        shown = []
        for track, person in self._people.items():
            if person.times[0] - self._hold <= seconds <= person.times[-1] + self._hold:
                left, top, right, bottom = person.box_at(seconds)
                shown.append(replace(self._texts[track], left=left, top=top, right=right, bottom=bottom))
        return shown


def _annotated(cv2: Any, source: Any, rate: float, labels: _Labels) -> Iterator[tuple[Image.Image, int]]:
    """Yield the annotated frames of a video, with the number of frames of the copy that each is."""
    written, start = 0, 0.0
    for seconds in times_of(cv2, source):
        there, pixels = source.retrieve()
        if not there:
            return
        start = start if written else seconds
        count = min(round((seconds - start) * rate) + 1 - written, round(_LONGEST_PAUSE * rate))
        if count > 0:
            yield draw(Image.fromarray(pixels[:, :, ::-1]), labels.at(seconds), labels.tasks), count
            written += count


def _write(cv2: Any, path: Path, frames: Iterable[tuple[Image.Image, int]], rate: float) -> int:
    """Write frames to a video, each as often as its number says, and return their count."""
    writer, written = None, 0
    try:
        for image, count in frames:
            if writer is None:
                size = image.width // 2 * 2, image.height // 2 * 2  # codecs need even sides
                codec = cv2.VideoWriter_fourcc(*_CODECS[path.suffix.lower()])
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, rate, size)
                require(writer.isOpened(), f"this OpenCV can't write {path.suffix} videos: try another suffix")
            pixels = np.ascontiguousarray(np.asarray(image)[: size[1], : size[0], ::-1])
            for _ in range(count):
                writer.write(pixels)
            written += count
    finally:
        if writer is not None:
            writer.release()
    return written
