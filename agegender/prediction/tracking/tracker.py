"""A tracker of boxes in a video."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agegender.prediction.tracking.association import Boxes, assign, iou

_LEAST_OVERLAP, _LEAST_OVERLAP_LOW = 0.2, 0.5  # for detections of high and of low score; ByteTrack's values
_BUFFER = 0.5  # see `iou`; for what is left: a person who walks by covers a face's width in 0.1 seconds
_NEW_VELOCITY = 0.5  # weight of the last displacement in the velocity


class _Track:
    """A face's last box, when it was seen, and its velocity in pixels per second."""

    def __init__(self, number: int, time: float, box: Boxes):
        self.number, self.time, self.box = number, time, box
        self.velocity: NDArray[np.float64] | None = None

    def predict(self, time: float) -> Boxes:
        """Return the box at a time, `[4]`, at constant velocity and size."""
        if self.velocity is None:
            return self.box
        return self.box + np.tile((time - self.time) * self.velocity, 2)

    def update(self, time: float, box: Boxes) -> None:
        """Set the box, and the velocity from the displacement of its center."""
        if time > self.time:
            moved = (box - self.box).reshape(2, 2).mean(0) / (time - self.time)
            before = moved if self.velocity is None else self.velocity
            self.velocity = before + _NEW_VELOCITY * (moved - before)
        self.time, self.box = time, box


class Tracker:
    """Follow boxes from frame to frame by their overlap, as ByteTrack does.

    Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022: detections of a high
    score are associated with the predicted boxes of all tracks first; those of a low score, as of a face that is half
    hidden, only continue a track that the previous frame had. A third association, of enlarged boxes, is for fast
    movements. Unlike ByteTrack, the prediction is a smoothed constant velocity instead of a Kalman filter, and a track
    begins with its first detection instead of its second.
    """

    def __init__(self, min_score: float, gap: float):
        """Start without tracks.

        Args:
            min_score: Score from which a detection is of high score, and can begin a track.
            gap: Seconds without a detection after which a track has ended.
        """
        self._min_score, self._gap = min_score, gap
        self._tracks: list[_Track] = []
        self._last, self._count = 0.0, 0

    def update(self, time: float, boxes: Boxes, scores: Sequence[float | None]) -> list[int | None]:
        """Associate the detections of the next frame with tracks.

        Args:
            time: Time of the frame in seconds. Before that of the previous one, all tracks have ended: the video is
                read once more.
            boxes: `[boxes, 4]`: left, top, right and bottom in pixels.
            scores: Score of each box; None counts as high.

        Returns:
            The number of each box's track, from 1 in the order of their beginnings; None for a detection of a low score
            that continues none.
        """
        alive = self._tracks if time >= self._last else []
        self._tracks = [track for track in alive if time - track.time <= self._gap + 1e-9]
        found: list[int | None] = [None] * len(boxes)
        high = [index for index, score in enumerate(scores) if score is None or score >= self._min_score]
        low = sorted({*range(len(boxes))} - {*high})
        idle = list(self._tracks)
        high, idle = self._associate(time, boxes, high, idle, found, _LEAST_OVERLAP)
        recent = [track for track in idle if track.time >= self._last]
        _, left = self._associate(time, boxes, low, recent, found, _LEAST_OVERLAP_LOW)
        idle = [track for track in idle if track in left or track not in recent]
        high, _ = self._associate(time, boxes, high, idle, found, _LEAST_OVERLAP, _BUFFER)
        for index in high:
            self._count += 1
            self._tracks.append(_Track(self._count, time, boxes[index]))
            found[index] = self._count
        self._last = time
        return found

    @staticmethod
    def _associate(
        time: float,
        boxes: Boxes,
        indices: list[int],
        tracks: list[_Track],
        found: list[int | None],
        least: float,
        buffer: float = 0.0,
    ) -> tuple[list[int], list[_Track]]:
        """Update tracks with the boxes at the indices, and return the indices and tracks that are left."""
        predicted = np.array([track.predict(time) for track in tracks]).reshape(-1, 4)
        pairs = assign(iou(predicted, boxes[indices], buffer), least)
        for row, column in pairs:
            tracks[row].update(time, boxes[indices[column]])
            found[indices[column]] = tracks[row].number
        rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
        return (
            [index for position, index in enumerate(indices) if position not in columns],
            [track for position, track in enumerate(tracks) if position not in rows],
        )
