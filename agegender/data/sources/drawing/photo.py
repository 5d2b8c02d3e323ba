"""Photographic effects for a drawn face: background, light, blur and noise."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLE = 2  # antialiasing: Pillow's polygons have hard edges


def draw_background(side: int, rng: np.random.Generator) -> Image.Image:
    """Return a color gradient with a few translucent shapes, `side` pixels square."""
    base = rng.uniform(80, 225) + rng.normal(0, 26, 3)  # muted colors
    corners = np.clip(base + rng.normal(0, 20, (2, 2, 1)) + rng.normal(0, 9, (2, 2, 3)), 0, 255).astype(np.uint8)
    coarse = Image.fromarray(corners).resize((side // 4, side // 4), Image.Resampling.BILINEAR)
    picture = coarse.resize((side, side), Image.Resampling.NEAREST)  # the steps are too small to see
    draw = ImageDraw.Draw(picture, "RGBA")
    kind, tint = rng.integers(4), tuple(int(v) for v in np.clip(base + rng.normal(0, 55, 3), 0, 255))
    for x, y, size in rng.uniform(0, 1, (int(rng.integers(2, 7)), 3)) * (side, side, side / 3):
        if kind == 0:
            draw.ellipse((x - size, y - size, x + size, y + size), (*tint, 70))
        elif kind == 1:
            draw.rectangle((x, 0, x + size / 2, side), (*tint, 60))
        elif kind == 2:
            draw.polygon([(x, y - size), (x + size, y + size), (x - size, y + size)], (*tint, 60))
    return picture


def develop(picture: Image.Image, size: int, light: float, rng: np.random.Generator) -> Image.Image:
    """Downscale the drawing to `size` and add blur, light from one side, exposure, contrast, tint and noise."""
    small = picture.reduce(SUPERSAMPLE)
    if rng.random() < 0.4:
        small = small.filter(ImageFilter.BoxBlur(size / 200 * float(rng.uniform(0.4, 2.4))))
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    gain = 1 + 0.16 * light * ramp[None, :] + np.float32(rng.normal(0, 0.08)) * ramp[:, None]
    gain *= np.float32(np.clip(rng.normal(0.96, 0.11), 0.6, 1.2))
    contrast = np.float32(np.clip(rng.normal(0.95, 0.14), 0.55, 1.3))
    pixels = np.asarray(small, dtype=np.float32) + (128 / contrast - 128)  # so that the contrast scales around mid-gray
    pixels *= (contrast * gain)[:, :, None] * rng.normal(1, 0.03, 3).astype(np.float32)
    grain = np.frombuffer(rng.bytes(size * size), dtype=np.int8).reshape(size, size, 1)  # uniform, deviation 74; fast
    pixels += grain * np.float32(rng.gamma(1.4, 2.0) / 74)
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
