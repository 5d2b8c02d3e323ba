"""The browser's scripts resample as OpenCV and Pillow do, in Chromium: the pixels that detector and network get."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from conftest import STORED
from helpers.chromium import CHROMIUM, file_server, launched
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import eval_transform, read_image
from agegender.prediction.faces.alignment import TEMPLATE, align_crop
from agegender.web.site import export

if TYPE_CHECKING:
    from playwright.sync_api import Page
else:
    pytest.importorskip("playwright", reason="the browser is driven by the package playwright")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
CALL = """async ([content, script, name, given]) => {
    const { decode } = await import("./decode.js");
    const image = await decode(new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))]), 100);
    const made = name ? (await import(script))[name](image, ...given) : image;
    const bytes = made.data ?? made;
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return [made.width, made.height, btoa(text)];
}"""
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """An empty page beside the scripts."""
    with file_server(Path(export.__file__).parent / "page") as address, launched() as browser:
        page = browser.new_page()
        page.goto(f"{address}licenses.txt")
        yield page


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    noise = np.random.default_rng(1).integers(0, 256, (371, 1283, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5))


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def call(page: Page, content: bytes, script: str = "", name: str = "", *given: Any) -> tuple[int, int, Pixels]:
    """Decodes an image, calls a function of a script with it, and returns width, height and bytes of the result."""
    width, height, text = page.evaluate(CALL, [base64.b64encode(content).decode(), f"./{script}", name, given])
    return width, height, np.frombuffer(base64.b64decode(text), np.uint8)


def image_of(result: tuple[int, int, Pixels]) -> Pixels:
    width, height, content = result
    return content.reshape(height, width, 4)[..., :3]


def differing(one: Pixels, other: Pixels) -> float:
    """Returns the fraction of values that differ, none by more than 1."""
    assert one.shape == other.shape
    apart = np.abs(one.astype(int) - other)
    assert apart.max() <= 1
    return float((apart > 0).mean())


@pytest.mark.parametrize("size", [(1024, 296), (641, 185), (256, 74)])
def test_shrink_is_the_area_average_of_opencv(page: Page, pixels: Pixels, size: tuple[int, int]) -> None:
    made = image_of(call(page, encoded(pixels), "resize.js", "shrink", *size))
    assert np.array_equal(made, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("rows", [370, 371])
def test_halve_is_a_level_of_the_pyramid(page: Page, pixels: Pixels, rows: int) -> None:
    made = image_of(call(page, encoded(pixels[:rows]), "resize.js", "halve"))
    expected = np.asarray(cv2.resize(pixels[:rows], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    assert differing(made, expected) < 0.005 and np.array_equal(made[:-1, :-1], expected[:-1, :-1])


@pytest.mark.parametrize("degrees", [0, 13, 90])
def test_warp_patch_is_the_warp_of_opencv(page: Page, pixels: Pixels, degrees: int) -> None:
    turn = 1.3 * np.array([[math.cos(radians := math.radians(degrees)), -math.sin(radians)], [0, 0]])
    turn[1] = -turn[0, 1], turn[0, 0]
    matrix = np.column_stack([turn, (130.3, 20.7)])
    made = image_of(call(page, encoded(pixels), "warp.js", "warpPatch", matrix.tolist(), 320))
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE
    assert np.array_equal(made, cv2.warpAffine(pixels, matrix, (320, 320), flags=flags, borderMode=border))


@pytest.mark.parametrize(("side", "place"), [(300, (400, 20)), (60, (-5, -7)), (150, (1200, 300))])
def test_align_crop_is_the_crop_of_the_package(page: Page, pixels: Pixels, side: int, place: tuple[int, int]) -> None:
    landmarks = side * TEMPLATE @ np.array([[0.9, 0.2], [-0.2, 0.9]]) + place
    made = image_of(call(page, encoded(pixels), "alignment.js", "alignCrop", landmarks.tolist(), 128))
    assert differing(made, np.asarray(align_crop(Image.fromarray(pixels), landmarks, 128))) < 0.001


@pytest.mark.parametrize(("size", "gray"), [(128, False), (371, True), (500, False)])
def test_eval_transform_is_that_of_the_package(page: Page, pixels: Pixels, size: int, gray: bool) -> None:
    _, _, content = call(page, encoded(pixels), "resize.js", "evalTransform", size, gray)
    expected = eval_transform(Image.fromarray(pixels), size, gray)
    assert np.array_equal(content, expected.transpose(2, 0, 1).ravel())


@pytest.mark.parametrize("orientation", STORED)
def test_decode_turns_an_image_upright(page: Page, pixels: Pixels, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(pixels[:100, :150], "JPEG", quality=95, subsampling=0, exif=exif)
    made = image_of(call(page, content))
    expected = np.asarray(read_image(content))
    assert made.shape == expected.shape and np.abs(made.astype(int) - expected).mean() < 0.1


def test_decode_puts_transparency_on_white(page: Page, pixels: Pixels) -> None:
    alpha = np.tile(np.arange(0, 250, 2, dtype=np.uint8), (100, 1))
    content = encoded(np.dstack([pixels[:100, :125], alpha]))
    assert differing(image_of(call(page, content)), np.asarray(read_image(content))) < 0.7
