"""Occlusion maps: how much a prediction changes when a part of the image is covered.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014. Unlike Grad-CAM, occlusion needs
no layer of the network, so it works for every trunk and with test-time augmentation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.statistics.metrics import Floats

GRAY = 127  # level of the covered pixels
GRID = 11  # positions of the patch along each side
_PATCHES = 5  # patches side by side along each side


def occlusion_map(pixels: NDArray[np.uint8], effect: Callable[[NDArray[np.uint8]], Floats]) -> Floats:
    """Return how much covering each pixel changes a prediction, `[size, size]`.

    A gray patch of a fifth of the side is moved over the image in `GRID` x `GRID` overlapping positions. A pixel's
    value is the mean effect of the patches that cover it.

    Args:
        pixels: The image `[size, size, channels]`.
        effect: Maps images `[n, size, size, channels]` to the changes of the prediction `[n]`, at least 0.
    """
    size = len(pixels)
    patch = max(1, -(-size // _PATCHES))
    starts = np.unique(np.linspace(0, size - patch, GRID).round().astype(int)).tolist()
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for top in starts:
        covered = np.repeat(pixels[np.newaxis], len(starts), axis=0)
        for image, left in zip(covered, starts, strict=True):
            image[top : top + patch, left : left + patch] = GRAY
        for change, left in zip(effect(covered).tolist(), starts, strict=True):
            total[top : top + patch, left : left + patch] += change
            count[top : top + patch, left : left + patch] += 1
    return total / count
