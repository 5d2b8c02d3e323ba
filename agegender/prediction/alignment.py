"""How a face is cut out of a picture: the way UTKFace's faces were, by the measured places of their landmarks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]  # [points, 2], x and y

# Where the eyes, the nose's tip and the corners of the mouth lie in UTKFace's crops, as shares of their side, by
# `python -m agegender.prediction.template data/UTKFace 4000`: the person's right eye, on the left, comes first.
TEMPLATE: Points = np.array(
    [(0.2967, 0.2822), (0.6886, 0.2826), (0.4911, 0.5153), (0.3239, 0.6774), (0.6583, 0.6782)], np.float64
)
# How far, in root mean square, landmarks may lie from the template in a crop that is taken as it is; the same command
# tells how many of UTKFace's lie nearer.
TOLERANCE = 0.08
_LARGEST_WARP = 4096  # pixels a side: a face that fills more of a picture than this gains nothing from its finer detail


def similarity(points: Points, onto: Points) -> NDArray[np.float64]:
    """Finds the shift, turn and scale that bring points nearest to others, in the least squares' sense.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 1991; in
    the plane and without mirroring it has this closed form.

    Args:
        points: `[n, 2]`, not all alike.
        onto: `[n, 2]`.

    Returns:
        `[2, 3]`: `matrix @ (x, y, 1)` is the point's new place.
    """
    centre, target = points.mean(0), onto.mean(0)
    before, after = points - centre, onto - target
    size = (before**2).sum()
    along = (before * after).sum() / size
    across = (before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum() / size
    turn = np.array([[along, -across], [across, along]])
    return np.column_stack([turn, target - turn @ centre])


def is_crop(landmarks: Points, width: int, height: int) -> bool:
    """Tells whether a picture is a face cut out the way UTKFace's are, so that cutting again would gain nothing.

    It is if it is square to a twentieth of its side, and its landmarks lie within `TOLERANCE` of the template.

    Args:
        landmarks: `[5, 2]` in pixels.
        width: Of the picture, in pixels.
        height: Likewise.
    """
    if abs(width - height) > 0.05 * max(width, height):
        return False
    distance = landmarks / (width, height) - TEMPLATE
    return math.sqrt((distance**2).sum(1).mean()) <= TOLERANCE


def cut(picture: Image.Image, landmarks: Points, size: int) -> Image.Image:
    """Cuts a face out of a picture, upright and where UTKFace's crops have it.

    The picture is sampled once, as densely as its own pixels lie, so that no detail turns into a pattern; what remains
    is a whole number of times the wanted size, which the one eval transform (`data.decode.to_pixels`) then resizes as
    it does all pictures.

    Args:
        picture: In its full resolution.
        landmarks: `[5, 2]` in its pixels.
        size: Side that the network takes, in pixels.

    Returns:
        A square picture; its side is a multiple of `size`.
    """
    crop = similarity(TEMPLATE, landmarks)  # from shares of the crop's side to the picture's pixels
    density = math.hypot(crop[0, 0], crop[1, 0]) / size - 1e-6  # source pixels to a wanted one
    side = size * max(1, min(math.ceil(density), _LARGEST_WARP // size))
    picture, offset = _with_surroundings(picture, crop)
    crop[:, 2] -= offset
    crop[:, :2] /= side  # Pillow asks for each pixel's place in the picture, counting pixels
    return picture.transform((side, side), Image.Transform.AFFINE, tuple(crop.ravel()), Image.Resampling.BILINEAR)


def _with_surroundings(picture: Image.Image, crop: Points) -> tuple[Image.Image, Points]:
    """Returns the part of a picture that a crop needs, and where in the picture it begins.

    Where the picture ends its edge is continued: on UTKFace, black there cost 0.4 years.
    """
    corners = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]) @ crop.T
    low, high = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    inside_low = np.clip(low, 0, np.array(picture.size) - 1)
    inside_high = np.clip(high, inside_low + 1, picture.size)
    part = np.asarray(picture.crop((*inside_low, *inside_high)))
    before, after = inside_low - low, high - inside_high
    margins = [(max(0, before[axis]), max(0, after[axis])) for axis in (1, 0)]
    padded = np.pad(part, [*margins, (0, 0)], mode="edge")
    return Image.fromarray(padded), inside_low - np.maximum(before, 0)
