"""Faces that a person's own detector found: boxes, and landmarks if it has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from agegender.errors import AgeGenderError, require
from agegender.prediction.faces.alignment import Points, estimate_similarity
from agegender.prediction.faces.detector import Face, FaceDetector

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the upright image

# Median landmarks within YuNet's boxes, as fractions of their sides, over UTKFace's faces whose box lies within the
# image, measured by `python -m benchmarks.face_template data/UTKFace 2000`.
_IN_BOX: Points = np.array(
    [(0.2626, 0.2850), (0.7204, 0.2865), (0.4902, 0.5263), (0.2923, 0.6958), (0.6860, 0.6970)], np.float64
)


@dataclass(frozen=True)
class GivenFace:
    """A face of another detector.

    Attributes:
        box: Left, top, right and bottom in pixels of the upright image, from the hairline to the chin.
        landmarks: `[5, 2]` in pixels, in the order of `alignment.TEMPLATE`: the eye on the image's left, the one on its
            right, the nose, the corners of the mouth on the left and the right; None if unknown.
    """

    box: Box
    landmarks: Points | None = None


def parse_face(box: Sequence[Any] | None, landmarks: Any = None) -> GivenFace:
    """Check a box and landmarks, either of which may be None.

    Without a box, it is that of YuNet around a face with these landmarks.

    Raises:
        AgeGenderError: The numbers are not finite, too many or too few, or the box has no area.
    """
    points = None if landmarks is None else _numbers(landmarks, (5, 2), "landmarks")
    if points is not None:
        eyes, down = points[1] - points[0], points[3:].mean(0) - points[:2].mean(0)
        turn = eyes[0] * down[1] - eyes[1] * down[0]  # above 0 at any rotation, below in a mirror
        order = "the eye on the image's left, the one on its right, the nose, the mouth's left and right corner"
        require(turn > 0, f"the landmarks {_text(points)} are no face, or not in this order: {order}")
    left, top, right, bottom = map(float, _box_around(points) if box is None else _numbers(box, (4,), "a box"))
    sides = _text(np.array((left, top, right, bottom)))
    require(left < right and top < bottom, f"the box {sides} has no area: left < right and top < bottom")
    return GivenFace((left, top, right, bottom), points)


def _box_around(points: Points | None) -> Points:
    """Return the edges of YuNet's box around a face with these landmarks."""
    if points is None:
        raise AgeGenderError("a face needs a box or landmarks")
    corners = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]) @ estimate_similarity(_IN_BOX, points).T
    return np.concatenate([corners.min(0), corners.max(0)])


def _numbers(values: Any, shape: tuple[int, ...], what: str) -> Points:
    form = "left, top, right, bottom" if shape == (4,) else "five points x, y"
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise AgeGenderError(f"{what} must be numbers: {form}") from None
    require(numbers.shape == shape, f"{what} must be {form}, not an array of {list(numbers.shape)}")
    require(bool(np.isfinite(numbers).all()), f"{what} must be finite numbers, not {_text(numbers)}")
    return numbers


def _text(numbers: Points) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers.ravel())})"


def parse_faces(boxes: Any = None, landmarks: Any = None) -> list[GivenFace]:
    """Check the boxes of an image, `[faces, 4]`, and the landmarks, `[faces, 5, 2]`; either may be None, but not both.

    Raises:
        AgeGenderError: See `parse_face`; or there are more of one than of the other.
    """
    counts = [len(each) for each in (boxes, landmarks) if each is not None]
    require(min(counts) == max(counts), f"boxes and landmarks must be as many, not {' and '.join(map(str, counts))}")
    missing = [None] * counts[0]
    pairs = zip(missing if boxes is None else boxes, missing if landmarks is None else landmarks, strict=True)
    return [parse_face(box, points) for box, points in pairs]


def locate_faces(picture: Image.Image, given: Sequence[GivenFace], detector: FaceDetector | None) -> list[Face]:
    """Return the faces with their landmarks, in the given order.

    Landmarks that are not given are detected in the box; the face has the detector's score then. If none are found, or
    without a detector, they are placed by the box alone, as in an upright face; there is no score then.

    Args:
        picture: RGB image.
        given: Its faces. Boxes are clipped to the image.
        detector: None to detect nothing.

    Raises:
        AgeGenderError: A box lies outside the image.
    """
    faces: list[Face] = []
    for number, face in enumerate(given, 1):
        left, top, right, bottom = face.box
        box = max(left, 0.0), max(top, 0.0), min(right, float(picture.width)), min(bottom, float(picture.height))
        if box[0] >= box[2] or box[1] >= box[3]:
            size = f"{picture.width} x {picture.height} pixels"
            raise AgeGenderError(f"box {number}, {_text(np.array(face.box))}, lies outside the image of {size}")
        placed = (face.box[0], face.box[1]) + _IN_BOX * (right - left, bottom - top)
        faces.append(Face(box, None, placed if face.landmarks is None else face.landmarks))
    unknown = [index for index, face in enumerate(given) if face.landmarks is None]
    if detector is not None and unknown:
        for index, found in zip(unknown, detector.locate(picture, [given[i].box for i in unknown]), strict=True):
            if found is not None:
                faces[index] = replace(found, box=faces[index].box)
    return faces
