"""Each corruption has the stated strength, and changes a face in the same way wherever the face turns up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as torch_functional

from agegender.data.augmentation import functional, jpeg
from agegender.data.augmentation.corruptions import CORRUPTIONS, corrupt, corrupt_any

SIDE = 128
NAMES = (
    *("noise_3", "noise_5", "noise_10", "noise_rgb_3", "noise_rgb_5", "noise_rgb_10", "blur", "sharpen"),
    *("resolution_40", "jpeg_30", "jpeg_10", "gray", "dark", "bright", "shift", "turn", "squeeze"),
)
GEOMETRY = ("shift", "turn", "squeeze")


def pictures(count: int = 4, channels: int = 3, side: int = 32) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(6))


def blob(sigma: float = 8.0, x: float = SIDE / 2, y: float = SIDE / 2) -> Tensor:
    """Returns four equal pictures of one round spot."""
    places = torch.arange(SIDE) + 0.5
    across, down = (torch.exp(-(((places - middle) / sigma) ** 2) / 2) for middle in (x, y))
    return (down[:, None] * across).expand(4, 1, SIDE, SIDE)


def moments(picture: Tensor) -> tuple[float, float, float, float]:
    """Returns a spot's middle and widths: x, y, and the standard deviations along them, in pixels."""
    weights, places = picture / picture.sum(), torch.arange(picture.shape[-1]) + 0.5
    across, down = weights.sum(0), weights.sum(1)
    x, y = float(across @ places), float(down @ places)
    return x, y, math.sqrt(float(across @ (places - x) ** 2)), math.sqrt(float(down @ (places - y) ** 2))


def test_corruptions_equal_the_documented_list() -> None:
    assert tuple(CORRUPTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@given(
    channels=st.sampled_from([1, 3]),
    side=st.integers(8, 40),
    rows=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    whole=st.booleans(),
)
@settings(max_examples=8)
def test_corruption_keeps_shape_and_range_and_leaves_its_input(
    name: str, channels: int, side: int, rows: list[int], whole: bool
) -> None:
    given_images = pictures(len(rows), channels, side)
    images = (given_images * 255).byte() if whole else given_images
    before, places = images.clone(), torch.tensor(rows)
    changed = corrupt(images, name, places)
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    assert torch.equal(images, before)
    assert torch.equal(corrupt(images, name, places), changed)


@pytest.mark.parametrize("name", NAMES)
def test_corruption_is_the_same_for_bytes_and_under_mixed_precision(name: str) -> None:
    stored, rows = (pictures() * 255).byte(), torch.arange(4)
    wanted = corrupt(stored.float() / 255, name, rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(corrupt(stored, name, rows), wanted)
    assert not torch.equal(wanted, stored.float() / 255)


@pytest.mark.parametrize("name", NAMES)
def test_corruption_of_a_face_does_not_depend_on_its_batch(name: str) -> None:
    images, rows = pictures(), torch.tensor([5, 0, 18, 7])
    together = corrupt(images, name, rows)
    for place, row in enumerate(rows.tolist()):
        alone = corrupt(images[place : place + 1], name, torch.tensor([row]))
        torch.testing.assert_close(alone[0], together[place], atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [3, 5, 10])
@pytest.mark.parametrize("kind", ["noise", "noise_rgb"])
def test_noise_has_the_stated_deviation_in_gray_levels(kind: str, levels: int) -> None:
    middle = torch.full((2, 3, SIDE, SIDE), 0.5)
    noise = (corrupt(middle, f"{kind}_{levels}", torch.tensor([1, 2])) - middle) * 255
    assert float(noise.std()) == pytest.approx(levels, rel=0.02) and abs(float(noise.mean())) < 0.03 * levels
    assert abs(float((noise[0] * noise[1]).mean())) < 0.05 * levels**2  # two faces, two draws
    if kind == "noise":
        assert torch.equal(noise[:, 0], noise[:, 1]) and torch.equal(noise[:, 0], noise[:, 2])
    else:
        assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 0.05 * levels**2


@pytest.mark.parametrize("side", [SIDE, 2 * SIDE])
def test_blur_spreads_a_point_by_its_fraction_of_the_side(side: int) -> None:
    point = torch.zeros(1, 1, side, side)
    point[..., side // 2, side // 2] = 1
    _, _, across, down = moments(corrupt(point, "blur", torch.tensor([0]))[0, 0])
    assert (across, down) == pytest.approx((1.5 * side / SIDE, 1.5 * side / SIDE), rel=0.03)


def test_sharpening_adds_1_5_times_the_detail_of_a_one_pixel_blur() -> None:
    images = 0.4 + 0.1 * pictures(2, 3, SIDE)  # so that nothing is cut
    blurred = functional.blur(images, torch.ones(2))
    expected = images + 1.5 * (images - blurred)
    torch.testing.assert_close(corrupt(images, "sharpen", torch.arange(2)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "small"), [(SIDE, 40), (64, 20)])
def test_resolution_is_forty_pixels_a_side(side: int, small: int) -> None:
    images = pictures(2, 3, side)
    down = torch_functional.interpolate(images, (small, small), mode="bilinear", antialias=True)
    expected = torch_functional.interpolate(down, (side, side), mode="bilinear")
    torch.testing.assert_close(corrupt(images, "resolution_40", torch.arange(2)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("quality", [10, 30])
def test_jpeg_has_the_stated_quality(quality: int) -> None:
    images = pictures(2)
    expected = jpeg.jpeg_compress(images, torch.tensor([quality, quality]))
    assert torch.equal(corrupt(images, f"jpeg_{quality}", torch.arange(2)), expected)


def test_gray_keeps_the_luminance_only() -> None:
    images = pictures(2)
    gray = corrupt(images, "gray", torch.arange(2))
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    for channel in range(3):
        torch.testing.assert_close(gray[:, channel], luma)
    assert torch.equal(corrupt(images[:, :1], "gray", torch.arange(2)), images[:, :1])


@pytest.mark.parametrize(("name", "gain"), [("dark", 0.6), ("bright", 1.4)])
def test_light_is_multiplied_and_cut_at_white(name: str, gain: float) -> None:
    images = pictures(2)
    torch.testing.assert_close(corrupt(images, name, torch.arange(2)), (gain * images).clamp(max=1))


def test_shift_moves_a_face_by_six_pixels_along_both_axes_in_four_directions() -> None:
    moved = [moments(picture[0])[:2] for picture in corrupt(blob(), "shift", torch.arange(4))]
    steps = {(round(x - SIDE / 2, 1), round(y - SIDE / 2, 1)) for x, y in moved}
    assert steps == {(6, 6), (6, -6), (-6, 6), (-6, -6)}


def test_turn_moves_a_face_by_ten_degrees_either_way() -> None:
    turned = [moments(picture[0])[:2] for picture in corrupt(blob(4, x=SIDE / 2 + 40), "turn", torch.arange(4))]
    angles = [math.degrees(math.atan2(y - SIDE / 2, x - SIDE / 2)) for x, y in turned]
    assert sorted(angles) == pytest.approx([-10, -10, 10, 10], abs=0.1)


def test_squeeze_changes_the_aspect_ratio_to_four_to_three_and_keeps_the_area() -> None:
    widths = [moments(picture[0])[2:] for picture in corrupt(blob()[:2], "squeeze", torch.arange(2))]
    assert [across / down for across, down in widths] == pytest.approx([3 / 4, 4 / 3], rel=0.01)
    assert [across * down for across, down in widths] == pytest.approx([64, 64], rel=0.02)


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_is_the_same_fraction_of_any_image_size(name: str) -> None:
    large = corrupt(blob(), name, torch.arange(4))
    small = corrupt(torch_functional.avg_pool2d(blob(), 2), name, torch.arange(4))
    torch.testing.assert_close(torch_functional.avg_pool2d(large, 2), small, atol=0.01, rtol=0)


def test_mixed_corruption_is_chosen_by_each_faces_row() -> None:
    rows = torch.arange(100, 100 + len(NAMES))
    images = pictures(len(NAMES))
    changed = corrupt_any(images, rows)
    everywhere = {name: corrupt(images, name, rows) for name in NAMES}
    used = [
        name
        for name, faces in everywhere.items()
        for face, one in zip(faces, changed, strict=True)
        if float((face - one).abs().max()) < 1e-5
    ]
    assert sorted(used) == sorted(NAMES)
