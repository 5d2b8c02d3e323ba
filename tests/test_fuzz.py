"""Fuzzing: any input gives a label, an image, a prediction or a reason.

`pytest -m slow tests/test_fuzz.py` searches for new cases, each kind for `$FUZZ_SECONDS` (20). Cases found are listed
in `FOUND`, for the default tests.
"""

from __future__ import annotations

import gc
import io
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from agegender.data.decode import UnreadableImageError, read_image
from agegender.data.index.utkface import GROUPS, FaceLabels, QuarantinedNameError, parse_name
from agegender.prediction.prediction import NO_FACE, Prediction
from agegender.prediction.predictor import Predictor

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
FORMS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF", "QOI", "DDS", "MPO")
SLOWEST = 20.0  # seconds per input, on a busy machine
Strategy = st.SearchStrategy[Any]
Checks = dict[str, tuple[Strategy, Callable[[Any], None]]]


# Inputs


def _file(form: str) -> bytes:
    """Returns a small image in a format, with EXIF data."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    more: dict[str, Any] = {"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **more)
    return file.getvalue()


def _damage(content: bytes, changes: Sequence[tuple[float, int, int]]) -> bytes:
    """Changes, deletes, repeats and overwrites parts of a file, most often near its start."""
    damaged = bytearray(content)
    for where, kind, value in changes:
        place = int(where * where * len(damaged)) if damaged else 0
        if kind == 0:
            damaged[place : place + 1] = bytes([value])
        elif kind == 1:
            del damaged[place : place + 1 + value % 16]
        elif kind == 2:
            damaged[place:place] = damaged[place : place + value]
        elif kind == 3:  # a length or a size
            damaged[place : place + 4] = random.Random(value).choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        else:
            del damaged[place:]
    return bytes(damaged)


_CHANGE = st.tuples(st.floats(0, 0.999), st.sampled_from([0, 0, 0, 1, 2, 3, 3, 4]), st.integers(0, 255))
FILES: Strategy = st.builds(_damage, st.sampled_from(FORMS).map(_file), st.lists(_CHANGE, max_size=8)) | st.builds(
    bytes.__add__, st.sampled_from([_file(form)[:16] for form in FORMS]), st.binary(max_size=200)
)
_FIELDS = st.sampled_from(["26", "0", "1", "4", "116", "999", "-1", "", "\u0663", "1e9", "20170116172819213", " "])
_WORDS = st.sampled_from(["_", "__", ".", ".jpg", ".chip.jpg", ".JPG", "/", "\\", "..", "\0", "\n", "\udcff", "\u202e"])
NAMES: Strategy = st.lists(_FIELDS | _WORDS | st.just("_") | st.text(max_size=3), max_size=12).map("".join)
_SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
_PIXELS = st.tuples(st.integers(1, 60), st.integers(1, 60)).flatmap(lambda side: arrays.arrays(np.uint8, (*side, 3)))
_ANY = arrays.arrays(arrays.scalar_dtypes(), _SHAPES) | _PIXELS
_MODES = st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
_PILLOW = st.builds(Image.new, _MODES, st.tuples(st.integers(0, 300), st.integers(0, 300)))
_TENSORS = _ANY.filter(lambda array: array.dtype.kind in "fiub").map(lambda array: _tensor(array))
_PATHS = (
    NAMES | st.text(max_size=300) | st.sampled_from(["/dev/zero", "/proc/self/mem", "/", ".", "http://[", "webcam"])
)
INPUTS: Strategy = FILES | FILES.map(io.BytesIO) | _ANY | _TENSORS | _PILLOW | _PATHS | _PATHS.map(Path)


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError):  # a type or byte order that PyTorch lacks
        return torch.zeros(array.shape)


# Checks of the outputs


def check_reason(reason: str) -> None:
    assert reason and "\n" not in reason and len(reason) < 200


def check_name(name: str) -> None:
    try:
        label = parse_name(name)
    except QuarantinedNameError as refused:
        check_reason(str(refused))
        return
    assert isinstance(label, FaceLabels) and 0 <= label.age <= 120 and label.gender in (0, 1)
    assert 0 <= label.group < len(GROUPS) and name.isascii()
    assert name.startswith(tuple(f"{age}_" for age in (label.age, f"{label.age:02}", f"{label.age:03}")))


def check_file(content: bytes) -> None:
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)  # a changed size must not take a minute to decode
        try:
            image = read_image(content)
        except UnreadableImageError as refused:
            check_reason(str(refused))
        else:
            assert image.mode == "RGB" and min(image.size) > 0
            image.getpixel((image.width - 1, image.height - 1))
    assert time.monotonic() - started < SLOWEST


def check_answer(predictor: Predictor, source: Any) -> None:
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
        found: list[Prediction] = predictor(source)
    assert found and time.monotonic() - started < SLOWEST
    for one in found:
        if one.error is not None:
            assert one.age is None and "\n" not in one.error and (one.error == NO_FACE or len(found) == 1)
            continue
        assert one.age is not None and one.p_female is not None
        assert math.isfinite(one.age) and 0 <= one.age <= 130 and 0 <= one.p_female <= 1


@pytest.fixture(scope="module")
def predictors(trained_run: Path) -> list[Predictor]:
    return [Predictor(trained_run, "cpu", detect=detect) for detect in ("never", "auto")]


@pytest.fixture
def checks(predictors: list[Predictor]) -> Checks:
    """The inputs and the check of the outputs, by kind."""

    def answers(source: Any) -> None:
        for predictor in predictors:
            if isinstance(source, io.BytesIO):
                source.seek(0)
            check_answer(predictor, source)

    return {"names": (NAMES, check_name), "pictures": (FILES, check_file), "inputs": (INPUTS, answers)}


def fuzz(inputs: Strategy, check: Callable[[Any], None], start: int, examples: int) -> None:
    @seed(start)
    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def examine(source: Any) -> None:
        check(source)

    examine()


@pytest.mark.parametrize(("kind", "examples"), [("names", 300), ("pictures", 150), ("inputs", 60)])
def test_inputs_of_every_kind_survive_fuzzing(kind: str, examples: int, checks: Checks) -> None:
    fuzz(*checks[kind], 0, examples)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["names", "pictures", "inputs"])
def test_inputs_of_every_kind_survive_fuzzing_with_new_seeds(kind: str, checks: Checks) -> None:
    first = start = random.SystemRandom().randrange(2**32)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        fuzz(*checks[kind], start, 100)
        start += 1
    print(f"{kind}: {start - first} rounds of 100, from seed {first}")


# Cases found

FOUND = {
    # reading fails after the first byte: the file stayed open until garbage collection
    "unreadable from the start": Path("/proc/self/mem"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_predictor_survives_inputs_found_by_fuzzing(kind: str, predictors: list[Predictor]) -> None:
    for predictor in predictors:
        check_answer(predictor, FOUND[kind])
    gc.collect()  # raises a warning for a file left open
