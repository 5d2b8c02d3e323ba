"""Comparison of an exported network with PyTorch: differences of the outputs, and time per face."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Sequence
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
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo

MOST = 512  # largest number of images to compare on
DRAWN = 64  # drawn faces to compare on by default
BATCH = 16  # faces per batch, as in prediction on a CPU
PROBABILITY = "of probability"  # unit of differences
# Largest difference between a float32 graph and PyTorch on any face: of a number in units of its last digit in files
# (1e-4 years), and of a probability. A different order of summation moves an age by about 1e-5 years. A network that
# was not trained on drawn faces may predict a flat age distribution for them, whose median moves by more than ten times
# that.
TOLERANCE = 0.01, 1e-4
TOLERANCE_DRAWN = 0.1, 1e-4
STEPPED = 0.01  # largest fraction of faces for which a number differs by a step
NARROWED = 5.0, 0.005  # largest mean difference with narrowed weights, likewise: 0.05 years
# Fraction of a number that may differ if it is large, with float32 and with narrowed weights; for ages it is less than
# the tolerances above.
LARGE, LARGE_NARROWED = 1e-6, 5e-4

Floats = NDArray[np.float64]
Outputs = dict[str, Floats]  # columns of `backend.Backend`, each `[faces]`


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


def run_backend(network: Backend, pixels: NDArray[np.uint8]) -> Outputs:
    """Return the outputs of a network for faces; see `backend.Backend`."""
    parts = [network(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def check_parity(ours: Outputs, theirs: Outputs, tasks: Sequence[TaskInfo], words: str, drawn: bool = True) -> str:
    """Compare an exported network's outputs with PyTorch's, and describe the difference.

    The ends of intervals and the ages of CORAL are step functions: a rounding error may move them by a step, such as a
    year. A fraction `STEPPED` of the faces may differ by steps; these are not compared further.

    Args:
        ours: Outputs of the exported network.
        theirs: Outputs of PyTorch.
        tasks: The tasks of both.
        words: Description of the faces.
        drawn: Whether the faces are drawn.

    Returns:
        The largest differences, as text.

    Raises:
        AgeGenderError: Some face differs by more than `TOLERANCE` (`TOLERANCE_DRAWN` for drawn faces), or too many
            differ by steps.
    """
    largest: dict[str, float] = {}
    wrong, units, stepped = [], [], np.zeros(len(ours[tasks[0].columns[0]]), np.bool_)
    for info in tasks:
        apart = _apart(info, ours, theirs)
        allowed = _allowed(info, theirs, TOLERANCE_DRAWN if drawn else TOLERANCE, LARGE)
        steps = _steps(info, apart, allowed)
        highest = apart[~steps].max(0, initial=0)
        within = (apart <= allowed)[~steps].all(0)  # not where one of both is NaN
        wrong += [f"{info.columns[i]} by {highest[i]:.1e}" for i in np.flatnonzero(~within)]
        if steps.any():
            units.append(
                f"{'whole' if info.digits[NUMBER_COLUMNS - 1] is None else 'steps in'} {info.unit or info.name}"
            )
        stepped |= steps
        _note(largest, info, highest[0] if info.kind == "number" else highest.max())
    difference = "at most " + _join(f"{value:.1e} {unit}" for unit, value in largest.items())
    if units:
        difference += f"; {stepped.sum()} of {len(stepped)} faces by {_join(dict.fromkeys(units))}"
    if wrong or stepped.mean() > STEPPED:
        raise AgeGenderError(
            f"no file is written: on {words}, the outputs of ONNX Runtime and PyTorch differ "
            f"({'; '.join([difference, *wrong])}); try another release of torch or onnxruntime"
        )
    return difference


def check_quantized(ours: Outputs, theirs: Outputs, tasks: Sequence[TaskInfo], precision: str, faces: Faces) -> str:
    """Compare the outputs with narrowed weights with PyTorch's, and describe the difference.

    Args:
        ours: Outputs of the exported network.
        theirs: Outputs of PyTorch.
        tasks: The tasks of both.
        precision: Precision of the stored weights.
        faces: The faces of the comparison.

    Returns:
        The mean differences, as text.

    Raises:
        AgeGenderError: The mean difference of a number or a probability is above `NARROWED`.
    """
    means: dict[str, float] = {}
    limits: dict[str, float] = {}
    fits = True
    for info in tasks:
        mean, allowed = (
            each[:, :1].mean() if info.kind == "number" else each.mean(0).max()
            for each in (_apart(info, ours, theirs), _allowed(info, theirs, NARROWED, LARGE_NARROWED))
        )
        fits &= bool(mean <= allowed)
        _note(means, info, mean)
        _note(limits, info, allowed)
    difference = _join(f"{mean:.{5 if unit == PROBABILITY else 4}f} {unit}" for unit, mean in means.items())
    if not fits:
        hint = "; real faces may differ less: check=<folder of face crops>" if faces.drawn else ""
        raise AgeGenderError(
            f"no file is written: on {faces.words}, precision={precision} moves the predictions by {difference} "
            f"on average, above {_join(f'{limit:g}' for limit in limits.values())}; use a higher precision{hint}"
        )
    return f"{difference} on average"


def _apart(info: TaskInfo, ours: Outputs, theirs: Outputs) -> Floats:
    """Return absolute differences `[faces, columns]`: 0 where both are NaN, NaN where one is."""
    one, other = (np.stack([outputs[name] for name in info.columns], 1) for outputs in (ours, theirs))
    apart: Floats = np.where(np.isnan(one) & np.isnan(other), 0, np.abs(one - other))
    return apart


def _allowed(info: TaskInfo, theirs: Outputs, tolerance: tuple[float, float], large: float) -> Floats:
    """Return the largest allowed differences `[faces, columns]`; the ends of intervals in whole numbers must agree."""
    shape = len(theirs[info.columns[0]]), len(info.columns)
    if info.kind != "number":
        return np.full(shape, tolerance[1])
    value = np.maximum(tolerance[0] * 10.0 ** -(info.digits[0] or 0), large * np.abs(theirs[info.columns[0]]))
    columns = [value * (digits is not None) for digits in info.digits[:NUMBER_COLUMNS]]
    tails = len(info.columns) - NUMBER_COLUMNS
    return np.column_stack([*columns, np.full((len(value), tails), tolerance[1])])


def _steps(info: TaskInfo, apart: Floats, allowed: Floats) -> NDArray[np.bool_]:
    """Return for which faces `[faces]` a number or an end of its interval differs by a step."""
    if info.kind != "number":
        return np.zeros(len(apart), np.bool_)
    apart, allowed = apart[:, [0, 2, 3]], allowed[:, [0, 2, 3]]
    steps = (apart > 0) & (apart == np.rint(apart))
    if info.digits[NUMBER_COLUMNS - 1] is not None:  # the step is unknown, but beyond any rounding
        steps[:, 1:] |= apart[:, 1:] > allowed[:, 1:]
    found: NDArray[np.bool_] = steps.any(1)
    return found


def _note(found: dict[str, float], info: TaskInfo, value: float) -> None:
    """Note the value of a task under its unit; the highest for several tasks."""
    unit = PROBABILITY if info.classes else info.unit or f"of {info.name}"
    found[unit] = float(np.fmax(found.get(unit, value), value))


def _join(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
