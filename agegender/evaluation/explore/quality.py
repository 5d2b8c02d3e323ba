"""Brightness, contrast and sharpness of the images of a data set, and the most extreme ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.index import FaceIndex
from agegender.data.loading.pixel_cache import DecodeOnRead
from agegender.system.parallel import map_threads

MEASURED_SIDE = 128  # pixels a side at which images are measured; UTKFace's 200 are scaled down, which averages noise


@dataclass(frozen=True)
class OutlierKind:
    """A kind of outlier: the faces with the lowest or the highest values of one measure."""

    name: str
    measure: str
    high: bool = False


EXTREMES = (
    OutlierKind("darkest", "brightness"),
    OutlierKind("brightest", "brightness", high=True),
    OutlierKind("flattest", "contrast"),
    OutlierKind("blurriest", "sharpness"),
)


def image_quality(gray: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Measure brightness, contrast and sharpness of one image.

    Args:
        gray: Gray levels, uint8 `[height, width]`, at least 3 x 3.

    Returns:
        Brightness, the mean gray level (0..255); contrast, the standard deviation of the levels; and sharpness, the
        variance of the Laplacian (sum of an inner pixel's four neighbors minus four times itself; Pech-Pacheco et al.
        2000).
    """
    levels = gray.astype(np.int32)
    neighbors = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    laplacian = neighbors - 4 * levels[1:-1, 1:-1]
    return float(levels.mean()), float(levels.std()), float(laplacian.var())


def measure_faces(index: FaceIndex) -> dict[str, NDArray[np.float64]]:
    """Measure the central square of every face in gray, at `MEASURED_SIDE` pixels a side, on all cores.

    Returns:
        `brightness`, `contrast` and `sharpness` (see `image_quality`), float64 `[n]` each.

    Raises:
        AgeGenderError: A file has become unreadable since it was indexed.
    """
    pixels = DecodeOnRead(index.folder, index.names, MEASURED_SIDE, grayscale=True)
    rows = range(len(index.names))
    found = list(
        map_threads(lambda row: image_quality(pixels.read(np.array([row]))[0, :, :, 0]), rows, "measuring light")
    )
    columns = np.array(found, dtype=np.float64).T
    return dict(zip(("brightness", "contrast", "sharpness"), columns, strict=True))


def find_extremes(measured: Mapping[str, NDArray[np.float64]], count: int) -> dict[str, list[int]]:
    """Return the rows of the `count` most extreme faces of each of `EXTREMES`, the most extreme first."""
    order = {kind.name: measured[kind.measure] * (-1 if kind.high else 1) for kind in EXTREMES}
    return {name: np.argsort(values, kind="stable")[:count].tolist() for name, values in order.items()}


def describe_quality(
    index: FaceIndex, name: str, values: NDArray[np.float64], extremes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Return the range and percentiles of a measure, and its outliers with their values.

    Args:
        index: The faces.
        name: Name of the measure.
        values: float64 `[n]`.
        extremes: Name of each of `EXTREMES` -> rows of the index.
    """
    low, median, high = np.percentile(values, (1, 50, 99))
    spread = {"min": values.min(), "percentile_1": low, "median": median, "percentile_99": high, "max": values.max()}
    outliers = {
        kind.name: [{"file": index.names[row], "value": round(float(values[row]), 2)} for row in extremes[kind.name]]
        for kind in EXTREMES
        if kind.measure == name
    }
    return {**{key: round(float(value), 2) for key, value in spread.items()}, **outliers}
