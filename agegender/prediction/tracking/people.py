"""People in videos: the track of each face, and one estimate per track over its frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from agegender.errors import require
from agegender.prediction.images.sources import split_frame_name
from agegender.prediction.prediction import NO_FACE, Prediction, round_values, to_row
from agegender.prediction.predictor import ImageResult
from agegender.prediction.tracking.association import Boxes
from agegender.prediction.tracking.tracker import Tracker
from agegender.tasks.info import TaskInfo

LOW_SCORE = 2 / 3  # of `min_score`: the detector's threshold for faces that can only continue a track
_LEAST_STD = 0.01  # years or another unit: the last digit of a standard deviation in a row
_PLACE = ("path", "track", "start", "end", "frames")


class Person:
    """A track: its frames, and the estimate over them.

    A number is the mean over the frames, weighted by 1 / std^2; a probability is the plain mean. Frames of a person
    share most of their error (the same face, light and camera), so that the estimate is not as certain as the mean of
    independent measurements would be. The standard deviation and the ends of the interval are therefore means with the
    same weights: those of a single, average frame, around a value that varies less than a frame's.

    Attributes:
        times: Times of the frames in seconds, and
        boxes: the boxes in them, `[4]` each; only the first and the last if `keep_boxes` is False.
        frames: Number of frames.
    """

    def __init__(self, tasks: Sequence[TaskInfo], keep_boxes: bool):
        """Start without a frame."""
        self._tasks, self._keep_boxes = tasks, keep_boxes
        self._sums, self._weights = defaultdict[str, float](float), defaultdict[str, float](float)
        self.times: list[float] = []
        self.boxes: list[Boxes] = []
        self.frames = 0

    def add(self, time: float, box: Boxes, values: Mapping[str, Any]) -> None:
        """Add a frame's box, and its values by the names in `TaskInfo.columns`."""
        if not self._keep_boxes:
            del self.times[1:], self.boxes[1:]  # a camera may run for days
        self.times.append(time)
        self.boxes.append(box)
        self.frames += 1
        for info in self._tasks:
            std = values[info.columns[1]] if info.kind == "number" else None
            weight = 1.0 if std is None else max(std, _LEAST_STD) ** -2
            for column in info.columns:
                if values[column] is not None:
                    self._sums[column] += weight * values[column]
                    self._weights[column] += weight

    def values(self) -> dict[str, Any]:
        """Return the estimate by the names in `TaskInfo.fields`, as of a `Prediction`."""
        names = (column for info in self._tasks for column in info.columns)
        means = {name: self._sums[name] / self._weights[name] if self._weights[name] else np.nan for name in names}
        return {name: value for info in self._tasks for name, value in info.values(means).items()}

    def box_at(self, time: float) -> list[float]:
        """Return the box at a time, interpolated between its frames."""
        edges = np.array(self.boxes).T
        return [float(np.interp(time, self.times, edge)) for edge in edges]


class People:
    """The people of all videos of a run.

    Boxes, scores and values are rounded as in the rows, so that a resumed run, which reads rows, ends with the same.

    Attributes:
        columns: Names of the columns of `rows`.
    """

    def __init__(self, tasks: Sequence[TaskInfo], min_score: float, gap: float, keep_boxes: bool = False):
        """Start without a video.

        Args:
            tasks: The predictor's tasks.
            min_score: See `Tracker`.
            gap: See `Tracker`.
            keep_boxes: Whether to keep the boxes of all frames, for `Person.box_at`.

        Raises:
            AgeGenderError: A column of a task has the name of one of the tracks' columns.
        """
        fields = [name for info in tasks for name in info.fields]
        taken = sorted({*fields} & {*_PLACE})
        require(not taken, f"track=true needs the column {', '.join(taken)}, which is a task's: leave out track=true")
        self.columns = (*_PLACE, *fields)
        self._tasks, self._settings, self._keep_boxes = tasks, (min_score, gap), keep_boxes
        self._trackers: dict[str, Tracker] = {}
        self._people: dict[str, dict[int, Person]] = {}

    def follow(self, answers: Iterable[ImageResult]) -> Iterator[ImageResult]:
        """Yield images with the tracks of their faces; images that are no frame of a video are unchanged.

        Faces of a low score that continue no track are left out. A frame without another face has the error `NO_FACE`.
        """
        for answered in answers:
            yield replace(answered, predictions=self._follow(answered))

    def _follow(self, answered: ImageResult) -> list[Prediction]:
        frame = split_frame_name(answered.path)
        predictions = answered.predictions
        faces = [face for face in predictions if face.error is None and face.left is not None]
        if frame is None or len(faces) < sum(face.error is None for face in predictions):
            return predictions
        tracks = self._add(*frame, [to_row(face, self._tasks) for face in faces])
        kept = [(face, track) for face, track in zip(faces, tracks, strict=True) if track is not None]
        tracked = [replace(face, face=number, track=track) for number, (face, track) in enumerate(kept, 1)]
        failed = [prediction for prediction in predictions if prediction.error is not None]
        return tracked + failed or [Prediction(answered.path, error=NO_FACE)]

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Follow the faces of a stopped run, from its rows."""
        for path, of_path in groupby(rows, key=lambda row: row["path"]):
            frame = split_frame_name(path)
            if frame is not None:
                self._add(*frame, [row for row in of_path if row["track"] is not None])

    def _add(self, video: str, time: float, rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
        """Add a frame, and return the number of each row's track."""
        tracker = self._trackers.setdefault(video, Tracker(*self._settings))
        people = self._people.setdefault(video, {})
        boxes = np.array([[row[edge] for edge in ("left", "top", "right", "bottom")] for row in rows], np.float64)
        tracks = tracker.update(time, boxes.reshape(-1, 4), [row["score"] for row in rows])
        for track, box, row in zip(tracks, boxes, rows, strict=True):
            if track is not None:
                people.setdefault(track, Person(self._tasks, self._keep_boxes)).add(time, box, row)
        return tracks

    def of_video(self, video: str) -> Mapping[int, Person]:
        """Return the people of a video by the numbers of their tracks."""
        return self._people.get(video, {})

    def estimated(self, prediction: Prediction) -> Prediction:
        """Return a frame's prediction with the values of its track over the frames so far."""
        frame = split_frame_name(prediction.path)
        if frame is None or prediction.track is None:
            return prediction
        return replace(prediction, values=self._people[frame[0]][prediction.track].values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each track, rounded: its video, its number, its first and last second, frames and values."""
        for video, people in self._people.items():
            for track, person in sorted(people.items()):
                place = {"path": video, "track": track, "start": person.times[0], "end": person.times[-1]}
                yield place | {"frames": person.frames} | round_values(person.values(), self._tasks)
