"""Sample images for the page: drawn faces of no real person."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from agegender.data.sources.synthetic import draw_face

_SIDE = 320  # pixels
# The person (see `draw_face`) and seed of each face; the faces of an image are side by side.
_SAMPLES: dict[str, Sequence[tuple[tuple[int, int, int], int]]] = {
    "1.jpg": [((5, 1, 2), 2)],
    "2.jpg": [((22, 0, 3), 3)],
    "3.jpg": [((31, 1, 1), 1)],
    "4.jpg": [((46, 1, 4), 0)],
    "5.jpg": [((70, 1, 3), 3)],
    "group.jpg": [((8, 0, 1), 5), ((36, 1, 3), 4), ((61, 0, 1), 2)],
}
GROUP = "group.jpg"
NAMES = tuple(_SAMPLES)


@cache
def draw_sample(name: str) -> bytes:
    """Return the sample of a name in `NAMES` as a JPEG; deterministic."""
    faces = _SAMPLES[name]
    image = Image.new("RGB", (_SIDE * len(faces), _SIDE))
    for column, (person, seed) in enumerate(faces):
        face = draw_face(*person, np.random.default_rng([seed, person[0]]), _SIDE)
        image.paste(face, (_SIDE * column, 0))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()
