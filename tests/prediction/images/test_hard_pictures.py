"""Images that are hard to read give a prediction or one reason, and affect no other image."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from conftest import ROOT
from PIL import Image

from agegender.prediction.prediction import NO_FACE
from agegender.prediction.predictor import Detect, Predictor


@pytest.fixture(scope="module", params=["never", "auto", pytest.param("always", marks=pytest.mark.slow)])
def predictor(trained_run: Path, request: pytest.FixtureRequest) -> Predictor:
    detect: Detect = request.param
    return Predictor(trained_run, device="cpu", detect=detect)


@pytest.fixture(scope="module")
def face(faces: Path) -> Image.Image:
    """A face that YuNet detects."""
    with Image.open(min(faces.glob("*.jpg"))) as picture:
        return picture.convert("RGB").resize((256, 256))


def encode(picture: Image.Image, form: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")


NO_PICTURES = {
    "decompression bomb": (png_that_claims(60_000, 60_000), "more than 178,956,970 pixels"),
    "no pixels": (png_that_claims(0, 0), ""),
    "no height": (png_that_claims(9, 0), ""),
    "no pixels, ppm": (b"P6 0 0 255\n", ""),
    "fewer pixels than it claims": (png_that_claims(900, 900), "damaged: "),
    "web page": (b"<!doctype html><title>404</title>", "not a picture that can be read"),
    "nothing": (b"", "not a picture that can be read"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_predictor_gives_one_reason_for_a_file_that_is_no_image(
    kind: str, predictor: Predictor, face: Image.Image
) -> None:
    content, message = NO_PICTURES[kind]
    before, (found,), after = predictor([face, content, face])
    assert found.error and found.error.startswith(message) and found.age is None
    assert before[0].age == after[0].age is not None


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "gif", "tiff", "bmp"])
def test_predictor_gives_one_reason_for_a_truncated_image(form: str, predictor: Predictor, face: Image.Image) -> None:
    content = encode(face, form)
    for length in (len(content) // 2, len(content) - 40):
        (found,) = predictor(content[:length])
        assert found.error and found.age is None


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SIZES = [(1, 1), (1, 5000), (5000, 1), (2, 9000), (9000, 15), (10_000, 16), (10_000, 40), (160, 10_000)]
SIZES += [(10_000, 400), (70_000, 2), (40_000, 20)]


@pytest.mark.parametrize("size", SIZES)
def test_predictor_accepts_images_of_any_shape(size: tuple[int, int], predictor: Predictor) -> None:
    plain = [Image.new("RGB", size), Image.new("RGB", size, "white")] if size[0] * size[1] < 1_000_000 else []
    for picture in (noise(*size), *plain):
        (found,) = predictor(picture)
        assert found.error == (None if predictor.detect == "never" else NO_FACE)
        assert (found.age is None) == (found.error is not None)


MEMORY = """
import sys
import numpy as np
from PIL import Image
from agegender.prediction.faces.detector import FaceDetector
finder = FaceDetector()
for width, height in ((20, 20), (2048, 24), (24, 1000), (10_000, 40), (10_000, 150), (2048, 32)):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    looks = finder._first_looks(noise.shape[:2], finder._smaller(noise), 0)
    print(width, height, len(looks), len(finder.detect(Image.fromarray(noise))))
"""


@pytest.mark.parametrize("filled", [pytest.param("60", marks=pytest.mark.slow), "190"])
def test_detector_finds_nothing_in_a_strip_whatever_memory_holds(filled: str) -> None:
    # glibc fills memory with this byte; YuNet once read uninitialized memory
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_PERTURB_": filled}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    found = [line.split()[2:] for line in done.stdout.splitlines()]
    assert found == [["0", "0"]] * 6, done.stdout


def test_predictor_finds_a_face_in_a_very_wide_image(predictor: Predictor) -> None:
    wide = Image.new("RGB", (10_000, 600), "gray")
    portrait = Image.fromarray(skimage.data.astronaut()).resize((455, 455))  # type: ignore[no-untyped-call]
    wide.paste(portrait, (4872, 22))  # a face of 80 pixels
    (found,) = predictor(encode(wide, "jpeg"))
    assert found.error is None and found.age is not None
    if predictor.detect != "never":
        assert found.left is not None and found.right is not None
        assert 4872 + 150 < found.left < found.right < 4872 + 250


def test_predictor_survives_an_image_beyond_the_limits_of_opencv(predictor: Predictor, face: Image.Image) -> None:
    huge = face.resize((256, 256)).copy()
    wide = Image.new("RGB", (33_000, 256))
    wide.paste(huge, (0, 0))
    before, (found,), after = predictor([face, wide, face])
    assert before[0].age == after[0].age is not None
    assert (found.age is None) == (found.error is not None) and (found.error is None or len(found.error) < 160)


def test_predictor_takes_the_first_frame_of_an_animated_gif(predictor: Predictor, face: Image.Image) -> None:
    frames = [face.quantize(64), Image.new("P", face.size), face.rotate(90).quantize(64)]
    moving = encode(frames[0], "gif", save_all=True, append_images=frames[1:], duration=40)
    assert Image.open(io.BytesIO(moving)).n_frames == 3  # type: ignore[attr-defined]
    still, moved = predictor(encode(frames[0], "gif")), predictor(moving)
    assert [found.age for found in moved] == [found.age for found in still] != [None]
