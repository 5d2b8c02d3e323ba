"""Does an exported network answer as PyTorch does, and how fast? Asked with faces, before the file is kept."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.data.decode import UnreadableImageError, read_image, to_pixels
from agegender.data.synthetic import generate_faces
from agegender.errors import AgeGenderError, require
from agegender.prediction.inputs import list_images
from agegender.prediction.network import Network
from agegender.prediction.sources import named

MOST = 512  # pictures that a check looks at
DRAWN = 64  # if none are given
BATCH = 16  # faces, as in one worker's hands on a CPU
# How far a float32 graph may be from PyTorch on any face: age, age_std, age_low, age_high, p_female. Sums in another
# order move an age by some 1e-5 years. But a network that has never seen drawn faces may have no idea of their ages,
# and the median of a flat distribution moves by more than ten times that.
TOLERANCE = (1e-4, 1e-4, 0.0, 0.0, 1e-4)
TOLERANCE_DRAWN = (1e-3, 1e-3, 0.0, 0.0, 1e-4)
STEPPED = 0.01  # share of the faces that may be on the other side of a boundary between whole years
NARROWED = 0.05, 0.005  # how far narrowed weights may move an age and a probability, in the mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Faces:
    """What is checked with.

    Attributes:
        pixels: `[faces, size, size, channels]`.
        words: What they are.
        drawn: Whether nobody gave them.
    """

    pixels: NDArray[np.uint8]
    words: str
    drawn: bool


def check_faces(check: str | None, size: int, grayscale: bool) -> Faces:
    """Returns the faces to check with: of many pictures `MOST`, spread evenly over their names in order.

    Args:
        check: A file, folder or glob of face crops; None for drawn faces.
        size: Side of the pixels' square.
        grayscale: One channel instead of three.

    Raises:
        AgeGenderError: There is no picture there that can be read.
    """
    if check is None:
        with tempfile.TemporaryDirectory() as folder:
            drawn = sorted(generate_faces(Path(folder) / "faces", DRAWN, size=max(16, size)).glob("*.jpg"))
            pixels = [to_pixels(read_image(path), size, grayscale) for path in drawn]
        return Faces(np.stack(pixels), f"{DRAWN} drawn faces (check=<folder of face crops> takes real ones)", True)
    try:
        names = list_images([check])
    except AgeGenderError:
        raise AgeGenderError(
            f"no picture found at check={check}; give a face crop, or a folder or glob of some"
        ) from None
    pixels, reason = [], ""
    for name in names[:: math.ceil(len(names) / MOST)]:
        try:
            pixels.append(to_pixels(read_image(named(name).read()), size, grayscale))
        except UnreadableImageError as error:
            reason = f"{name}: {error}"
    require(bool(pixels), f"check={check} holds no picture that can be read ({reason})")
    count = f"{len(pixels)} of {len(names)} pictures" if len(names) > 1 else "1 picture"
    return Faces(np.stack(pixels), f"{count} at {check}", False)


def answers_of(network: Network, pixels: NDArray[np.uint8]) -> Floats:
    """Returns a network's answers `[faces, 5]`, see `network.Network`."""
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([network(pixels[start : start + BATCH]) for start in starts])


def milliseconds(network: Network, pixels: NDArray[np.uint8]) -> float:
    """Returns how long a face takes on one thread in a batch of `BATCH`: the best of several."""
    batch = np.resize(pixels, (BATCH, *pixels.shape[1:]))
    taken = []
    with network.shared_by_workers():
        network.start_worker()
        for _ in range(6):
            start = time.perf_counter()
            network(batch)
            taken.append(time.perf_counter() - start)
    return 1000 * min(taken) / BATCH


def require_same(ours: Floats, theirs: Floats, words: str, drawn: bool = True) -> str:
    """Returns how far an exported network's answers `[faces, 5]` are from PyTorch's, in words.

    Answers in whole years (an interval's ends, and coral's ages) step at a boundary, where a rounding can put a face on
    its other side. So of a hundred faces one may differ by whole years, and is not compared further.

    Raises:
        AgeGenderError: By more than roundings: some face by more than `TOLERANCE` (of drawn faces
            `TOLERANCE_DRAWN`), or too many by whole years.
    """
    apart = _apart(ours, theirs)
    years = apart[:, [0, 2, 3]]
    stepped = ((years > 0) & (years == np.rint(years))).any(1)
    largest = apart[~stepped].max(0, initial=0)
    told = f"at most {largest[0]:.1e} years and {largest[4]:.1e} of probability"
    if stepped.any():
        told += f"; {stepped.sum()} of {len(apart)} faces by whole years"
    if not ((largest <= (TOLERANCE_DRAWN if drawn else TOLERANCE)).all() and stepped.mean() <= STEPPED):
        raise AgeGenderError(
            f"no file is written: on {words}, ONNX Runtime answers otherwise than PyTorch ({told}; "
            f"age_std by {largest[1]:.1e}); another release of torch or onnxruntime may do"
        )
    return told


def require_near(ours: Floats, theirs: Floats, precision: str, faces: Faces) -> str:
    """Returns how far narrowed weights move the answers `[faces, 5]` from PyTorch's, in words.

    Raises:
        AgeGenderError: By more than `NARROWED`.
    """
    mean = _apart(ours, theirs)[:, [0, 4]].mean(0)
    told = f"{mean[0]:.4f} years and {mean[1]:.5f} of probability"
    if not (mean <= NARROWED).all():
        otherwise = "; real faces may fare better: check=<folder of face crops>" if faces.drawn else ""
        raise AgeGenderError(
            f"no file is written: on {faces.words}, precision={precision} moves the answers by {told} in the mean, "
            f"above {NARROWED[0]} and {NARROWED[1]}; take a higher precision{otherwise}"
        )
    return f"{told} in the mean"


def _apart(ours: Floats, theirs: Floats) -> Floats:
    """Returns the absolute differences: 0 where both are NaN, NaN where one is."""
    apart: Floats = np.where(np.isnan(ours) & np.isnan(theirs), 0, np.abs(ours - theirs))
    return apart
