"""Brightness, contrast and sharpness, against cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from agegender.data.index.index import build_index
from agegender.evaluation.explore.quality import find_extremes, image_quality, measure_faces


def test_brightness_contrast_and_sharpness_match_hand_computation() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 250  # Laplacian of the inner 3 x 3: -1000 in the middle, 250 at its four sides, 0 in the corners
    brightness, contrast, sharpness = image_quality(spot)
    assert brightness == pytest.approx(250 / 25)
    assert contrast == pytest.approx(np.sqrt(250**2 / 25 - 10**2))
    assert sharpness == pytest.approx((1000**2 + 4 * 250**2) / 9)


@pytest.mark.parametrize("gray", [0, 7, 255])
def test_blank_image_has_neither_contrast_nor_sharpness(gray: int) -> None:
    assert image_quality(np.full((8, 8), gray, np.uint8)) == (gray, 0, 0)


def test_linear_gradient_has_contrast_without_sharpness() -> None:
    slope = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    brightness, contrast, sharpness = image_quality(slope)
    assert (brightness, sharpness) == (75, 0) and contrast == pytest.approx(10 * np.sqrt((16**2 - 1) / 12))


def test_image_measures_separate_blurred_dimmed_and_washed_out_copies(faces: Path, tmp_path: Path) -> None:
    source = min(faces.iterdir())
    with Image.open(source) as picture:
        face = picture.convert("RGB")
    changed = {
        "1_0_0_1.png": face,
        "1_0_0_2.png": face.filter(ImageFilter.GaussianBlur(2)),
        "1_0_0_3.png": face.point([level // 2 for level in range(256)] * 3),
        "1_0_0_4.png": face.point([100 + level // 8 for level in range(256)] * 3),
    }
    (tmp_path / "faces").mkdir()
    for name, copy in changed.items():
        copy.save(tmp_path / "faces" / name)
    measured = measure_faces(build_index(tmp_path / "faces", tmp_path / "cache", split="test"))
    sharpness, brightness, contrast = (measured[name] for name in ("sharpness", "brightness", "contrast"))
    assert sharpness[1] < sharpness[0] / 2
    assert brightness[2] == pytest.approx(brightness[0] / 2, abs=1) and brightness.argmin() == 2
    assert contrast[3] == pytest.approx(contrast[0] / 8, abs=1) and contrast.argmin() == 3


def test_outliers_are_the_extremes_of_each_measure() -> None:
    measured = {
        "brightness": np.array([5.0, 1, 9, 7]),
        "contrast": np.array([4.0, 2, 2, 9]),
        "sharpness": np.array([8.0, 7, 6, 5]),
    }
    assert find_extremes(measured, 2) == {
        "darkest": [1, 0],
        "brightest": [2, 3],
        "flattest": [1, 2],
        "blurriest": [3, 2],
    }
    assert len(find_extremes(measured, 10)["darkest"]) == 4
