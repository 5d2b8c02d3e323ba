"""Face alignment: warp a face to the landmark positions of UTKFace's aligned crops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]  # [points, 2], x and y

# Positions of the eyes, the nose tip and the mouth corners in UTKFace's crops, as fractions of the side, measured by
# `python -m benchmarks.face_template data/UTKFace 4000`. The person's right eye, on the image's
# left, is first.
TEMPLATE: Points = np.array(
    [(0.2967, 0.2822), (0.6886, 0.2826), (0.4911, 0.5153), (0.3239, 0.6774), (0.6583, 0.6782)], np.float64
)
# Largest root mean square distance from the template, as a fraction of the side, of an image used without alignment.
# The same command prints the percentage of UTKFace's crops within it.
TOLERANCE = 0.08
_LARGEST_WARP = 4096  # pixels a side: the finer detail of a larger face does not change the prediction


def estimate_similarity(points: Points, onto: Points) -> NDArray[np.float64]:
    """Fit the similarity transform (translation, rotation, scale) between two point sets by least squares.

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 1991. In
    two dimensions and without reflection it has this closed form.

    Args:
        points: Source points `[n, 2]`, not all equal.
        onto: Target points `[n, 2]`.

    Returns:
        The matrix `[2, 3]`: `matrix @ (x, y, 1)` is the transformed point.
    """
    center, target = points.mean(0), onto.mean(0)
    before, after = points - center, onto - target
    size = (before**2).sum()
    along = (before * after).sum() / size
    across = (before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).sum() / size
    turn = np.array([[along, -across], [across, along]])
    return np.column_stack([turn, target - turn @ center])


def is_aligned_crop(landmarks: Points, width: int, height: int) -> bool:
    """Return whether an image already is a face crop aligned like UTKFace's.

    Its sides must differ by at most 5 %, and its landmarks must lie within `TOLERANCE` of the template.

    Args:
        landmarks: `[5, 2]` in pixels.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    if abs(width - height) > 0.05 * max(width, height):
        return False
    distance = landmarks / (width, height) - TEMPLATE
    return math.sqrt((distance**2).sum(1).mean()) <= TOLERANCE


def align_crop(picture: Image.Image, landmarks: Points, size: int) -> Image.Image:
    """Crop a face from an image, upright and aligned to the template.

    The image is resampled once, at about its own resolution, which avoids aliasing. The side of the crop is an integer
    multiple of `size`; the eval transform (`data.decode.eval_transform`) then downscales it as it does every image.

    Args:
        picture: Image at its full resolution.
        landmarks: `[5, 2]` in pixels of the image.
        size: Side of the network's input in pixels.

    Returns:
        A square image; its side is a multiple of `size`.
    """
    crop = estimate_similarity(TEMPLATE, landmarks)  # maps fractions of the crop's side to pixels of the image
    density = math.hypot(crop[0, 0], crop[1, 0]) / size - 1e-6  # source pixels per pixel of the network's input
    side = size * max(1, min(math.ceil(density), _LARGEST_WARP // size))
    picture, offset = _with_surroundings(picture, crop)
    crop[:, 2] -= offset
    crop[:, :2] /= side  # Image.transform takes the map from output to input pixels
    return picture.transform((side, side), Image.Transform.AFFINE, tuple(crop.ravel()), Image.Resampling.BILINEAR)


def _with_surroundings(picture: Image.Image, crop: Points) -> tuple[Image.Image, Points]:
    """Return the part of an image that a crop covers, and the position of its top left corner in the image.

    Beyond the border the edge pixels are repeated: black padding raised the age MAE on UTKFace by 0.4 years.
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
