"""Comparison of an exported network with PyTorch: differences of the outputs, and time per face."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.data.decode import UnreadableImageError, eval_transform, read_image
from agegender.data.sources.synthetic import generate_faces
from agegender.errors import AgeGenderError, require
from agegender.prediction.backends.backend import Backend
from agegender.prediction.images.listing import list_images
from agegender.prediction.images.sources import as_named_image

MOST = 512  # largest number of images to compare on
DRAWN = 64  # drawn faces to compare on by default
BATCH = 16  # faces per batch, as in prediction on a CPU
# Largest absolute difference between a float32 graph and PyTorch on any face: age, age_std, age_low, age_high (years),
# p_female. A different order of summation moves an age by about 1e-5 years. A network that was not trained on drawn
# faces may predict a flat age distribution for them, whose median moves by more than ten times that.
TOLERANCE = (1e-4, 1e-4, 0.0, 0.0, 1e-4)
TOLERANCE_DRAWN = (1e-3, 1e-3, 0.0, 0.0, 1e-4)
STEPPED = 0.01  # largest fraction of faces whose rounded ages differ by whole years
NARROWED = 0.05, 0.005  # largest mean difference of age (years) and of probability with narrowed weights

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Faces:
    """The faces of a comparison.

    Attributes:
        pixels: uint8 `[faces, size, size, channels]`.
        words: Description for messages.
        drawn: Whether they are drawn faces, the default.
    """

    pixels: NDArray[np.uint8]
    words: str
    drawn: bool


def check_faces(check: str | None, size: int, grayscale: bool) -> Faces:
    """Load the faces of a comparison: at most `MOST`, evenly spaced in the order of their names.

    Args:
        check: File, folder or glob of face crops; None for drawn faces.
        size: Side of the network's input in pixels.
        grayscale: Whether to load one channel instead of three.

    Raises:
        AgeGenderError: No image is there, or none can be read.
    """
    if check is None:
        with tempfile.TemporaryDirectory() as folder:
            drawn = sorted(generate_faces(Path(folder) / "faces", DRAWN, size=max(16, size)).glob("*.jpg"))
            pixels = [eval_transform(read_image(path), size, grayscale) for path in drawn]
        return Faces(np.stack(pixels), f"{DRAWN} drawn faces (for real ones: check=<folder of face crops>)", True)
    try:
        names = list_images([check])
    except AgeGenderError:
        raise AgeGenderError(
            f"no image found at check={check}; give a face crop, or a folder or glob of them"
        ) from None
    pixels, reason = [], ""
    for name in names[:: math.ceil(len(names) / MOST)]:
        try:
            pixels.append(eval_transform(read_image(as_named_image(name).read()), size, grayscale))
        except UnreadableImageError as error:
            reason = f"{name}: {error}"
    require(bool(pixels), f"check={check} holds no image that can be read ({reason})")
    count = f"{len(pixels)} of {len(names)} images" if len(names) > 1 else "1 image"
    return Faces(np.stack(pixels), f"{count} at {check}", False)


def run_backend(network: Backend, pixels: NDArray[np.uint8]) -> Floats:
    """Return the outputs `[faces, 5]` of a network, see `backend.Backend`."""
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([network(pixels[start : start + BATCH]) for start in starts])


def latency_ms(network: Backend, pixels: NDArray[np.uint8]) -> float:
    """Return the time per face in milliseconds, on one thread in batches of `BATCH`: the minimum of six runs."""
    batch = np.resize(pixels, (BATCH, *pixels.shape[1:]))
    taken = []
    with network.worker_context():
        network.init_worker()
        for _ in range(6):
            start = time.perf_counter()
            network(batch)
            taken.append(time.perf_counter() - start)
    return 1000 * min(taken) / BATCH


def check_parity(ours: Floats, theirs: Floats, words: str, drawn: bool = True) -> str:
    """Compare an exported network's outputs `[faces, 5]` with PyTorch's, and describe the difference.

    Outputs in whole years (the interval's ends, and the ages of CORAL) are step functions: a rounding error may move
    them by a year. A fraction `STEPPED` of the faces may differ by whole years; these are not compared further.

    Args:
        ours: Outputs of the exported network.
        theirs: Outputs of PyTorch.
        words: Description of the faces.
        drawn: Whether the faces are drawn.

    Returns:
        The largest differences, as text.

    Raises:
        AgeGenderError: Some face differs by more than `TOLERANCE` (`TOLERANCE_DRAWN` for drawn faces), or too many
            differ by whole years.
    """
    apart = _apart(ours, theirs)
    years = apart[:, [0, 2, 3]]
    stepped = ((years > 0) & (years == np.rint(years))).any(1)
    largest = apart[~stepped].max(0, initial=0)
    difference = f"at most {largest[0]:.1e} years and {largest[4]:.1e} of probability"
    if stepped.any():
        difference += f"; {stepped.sum()} of {len(apart)} faces by whole years"
    if not ((largest <= (TOLERANCE_DRAWN if drawn else TOLERANCE)).all() and stepped.mean() <= STEPPED):
        raise AgeGenderError(
            f"no file is written: on {words}, the outputs of ONNX Runtime and PyTorch differ ({difference}; "
            f"age_std by {largest[1]:.1e}); try another release of torch or onnxruntime"
        )
    return difference


def check_quantized(ours: Floats, theirs: Floats, precision: str, faces: Faces) -> str:
    """Compare the outputs `[faces, 5]` with narrowed weights with PyTorch's, and describe the difference.

    Args:
        ours: Outputs of the exported network.
        theirs: Outputs of PyTorch.
        precision: Precision of the stored weights.
        faces: The faces of the comparison.

    Returns:
        The mean differences, as text.

    Raises:
        AgeGenderError: A mean difference is above `NARROWED`.
    """
    mean = _apart(ours, theirs)[:, [0, 4]].mean(0)
    difference = f"{mean[0]:.4f} years and {mean[1]:.5f} of probability"
    if not (mean <= NARROWED).all():
        hint = "; real faces may differ less: check=<folder of face crops>" if faces.drawn else ""
        raise AgeGenderError(
            f"no file is written: on {faces.words}, precision={precision} moves the predictions by {difference} "
            f"on average, above {NARROWED[0]} and {NARROWED[1]}; use a higher precision{hint}"
        )
    return f"{difference} on average"


def _apart(ours: Floats, theirs: Floats) -> Floats:
    """Return absolute differences: 0 where both are NaN, NaN where one is."""
    apart: Floats = np.where(np.isnan(ours) & np.isnan(theirs), 0, np.abs(ours - theirs))
    return apart
