"""Curves, and a `Pen` that draws them as polygons.

Points are arrays `[n, 2]` in half image sides: the image spans -1 to 1 along both axes, and y points down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agegender.data.sources.drawing.person import Color

Points = NDArray[np.float64]
Place = tuple[float, float]

STEPS = np.linspace(0.0, 1.0, 6, endpoint=False)
# Catmull-Rom basis at STEPS, for a smooth curve through every control point
SPLINE = 0.5 * np.stack([-STEPS + 2 * STEPS**2 - STEPS**3, 2 - 5 * STEPS**2 + 3 * STEPS**3,
                         STEPS + 4 * STEPS**2 - 3 * STEPS**3, STEPS**3 - STEPS**2], axis=1)  # fmt: skip
ALONG = np.linspace(0.0, 1.0, 9)
BEZIER = np.stack([(1 - ALONG) ** 2, 2 * ALONG * (1 - ALONG), ALONG**2], axis=1)  # quadratic Bezier basis at ALONG
TURN = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)


def smooth(points: Points, closed: bool = True) -> Points:
    """Return a smooth curve through the control points `[n, 2]`."""
    if closed:
        around = np.concatenate([points[-1:], points, points[:2]])
    else:
        around = np.concatenate([points[:1], points, points[-1:]])
    windows = np.stack([around[i : len(around) - 3 + i] for i in range(4)], axis=1)  # [segments, 4, 2]
    curve = (SPLINE @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def arc(start: Place, bend: Place, end: Place) -> Points:
    """Return 9 points of the quadratic Bezier curve from `start` to `end` with the control point `bend`."""
    curve: Points = BEZIER @ np.array((start, bend, end))
    return curve


def mirror(points: Points) -> Points:
    """Return the points, mirrored left to right."""
    return points * (-1, 1)


class Pen:
    """Draw shapes onto an image, rotated, scaled and shifted."""

    def __init__(self, picture: Image.Image, tilt: float, scale: float, shift: Place) -> None:
        """Set the tilt in radians, the scale (1 fills the image) and the shift in half image sides."""
        self.solid = ImageDraw.Draw(picture)
        self.glaze = ImageDraw.Draw(picture, "RGBA")  # alpha blending onto the RGB image, which is slower
        half = picture.width / 2
        cos, sin = np.cos(tilt) * scale * half, np.sin(tilt) * scale * half
        self.turn = np.array([[cos, sin], [-sin, cos]])
        self.origin = half * (1 + np.array(shift))

    def moved(self, dx: float, dy: float) -> Pen:
        """Return a pen whose origin is shifted by (dx, dy), for example for the features of a turned head."""
        other = object.__new__(Pen)
        other.solid, other.glaze, other.turn = self.solid, self.glaze, self.turn
        other.origin = self.origin + np.array([dx, dy]) @ self.turn
        return other

    def fill(self, points: Points, color: Color, alpha: float = 1.0) -> None:
        """Fill a polygon with the points `[n, 2]`."""
        pixels = (points @ self.turn + self.origin).ravel().tolist()
        if alpha < 1:
            self.glaze.polygon(pixels, (*color, int(255 * alpha)))
        else:
            self.solid.polygon(pixels, color)

    def pair(self, points: Points, color: Color, alpha: float = 1.0) -> None:
        """Fill a polygon and its mirror image."""
        self.fill(points, color, alpha)
        self.fill(mirror(points), color, alpha)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color, alpha: float = 1.0) -> None:
        """Fill an ellipse."""
        self.fill(CIRCLE * (rx, ry) + (x, y), color, alpha)

    def stroke(self, points: Points, width: float, color: Color, alpha: float = 1.0, even: bool = False) -> None:
        """Draw a line as one polygon, thickest in the middle or of `even` thickness."""
        last = len(points) - 1
        along = points[np.minimum(np.arange(last + 1) + 1, last)] - points[np.maximum(np.arange(last + 1) - 1, 0)]
        across = along[:, ::-1] * (-1, 1) / (np.hypot(along[:, 0], along[:, 1])[:, None] + 1e-9)
        swell = np.ones(last + 1) if even else 0.25 + 0.75 * np.sin(np.arange(last + 1) * (np.pi / last))
        side = across * (swell * width / 2)[:, None]
        self.fill(np.concatenate([points + side, (points - side)[::-1]]), color, alpha)

    def curve(self, start: Place, bend: Place, end: Place, width: float, color: Color, alpha: float = 1.0) -> None:
        """Draw a quadratic Bezier curve that is thickest in the middle."""
        self.stroke(arc(start, bend, end), width, color, alpha)
