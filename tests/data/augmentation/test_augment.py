"""Augmentation: training images vary within the configured ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional

from agegender.data.augmentation.augment import Augment
from agegender.data.augmentation.mixing import split_settings
from agegender.errors import AgeGenderError

# The strengths that there were before pictures got noisy, sharper, coarser or squeezed.
BEFORE: dict[str, Any] = {
    "flip": 0.5,
    "rotate": 20.0,
    "scale": (0.8, 1.25),
    "shift": 0.1,
    "brightness": 0.2,
    "contrast": 0.3,
    "color": 0.4,
    "gray": 0.3,
    "blur": 0.5,
    "blur_sigma": (0.02, 0.05),
    "compress": 0.5,
    "compress_quality": (20, 80),
    "erase": 0.5,
    "erase_area": (0.1, 0.3),
}
EVERYTHING = BEFORE | {
    "squeeze": 0.2,
    "resolution": 0.5,
    "resolution_scale": (0.3, 0.8),
    "sharpen": 0.5,
    "sharpen_amount": (0.5, 2.0),
    "noise": 0.5,
    "noise_sigma": (0.01, 0.1),
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(count: int = 4, size: int = 32, channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=_generator(9), dtype=torch.uint8)


def _spot(row: float, column: float, size: int = 65, width: float = 3.0) -> Tensor:
    """Returns a float picture with one bright spot, given in pixels from the middle."""
    steps = torch.arange(size) - (size - 1) / 2
    square = (steps[:, None] - row) ** 2 + (steps[None, :] - column) ** 2
    return torch.exp(-square / (2 * width**2))[None]


def _center(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the row and column of each picture's center of mass, in pixels from the middle."""
    steps = torch.arange(pictures.shape[-1]) - (pictures.shape[-1] - 1) / 2
    mass = pictures.sum((1, 2, 3))
    return (pictures.sum((1, 3)) * steps).sum(1) / mass, (pictures.sum((1, 2)) * steps).sum(1) / mass


QUALITY = ("resolution", "sharpen", "noise")
NEVER = {name: 0.0 for name, value in EVERYTHING.items() if isinstance(value, float)} | {"scale": (1.0, 1.0)}


@pytest.mark.parametrize("settings", [{}, NEVER, EVERYTHING | NEVER])
def test_neutral_settings_change_nothing(settings: dict[str, Any]) -> None:
    pictures = _pictures(channels=3)
    assert torch.equal(Augment(**settings)(pictures, _generator()), pictures.float() / 255)
    floats = pictures.float() / 255
    assert torch.equal(Augment(**settings)(floats, _generator()), floats)


@pytest.mark.parametrize("name", ["", "flip", "contrast", "gray", "blur", "compress", "erase", *QUALITY, "squeeze"])
def test_augment_does_not_modify_its_input(name: str) -> None:
    augment = Augment(**({name: 1.0} if name else EVERYTHING))
    for pictures in (_pictures(channels=3), _pictures(channels=3).float() / 255):
        before = pictures.clone()
        assert not torch.equal(augment(pictures, _generator()), before)
        assert torch.equal(pictures, before)


@pytest.mark.parametrize("size", [32, 33, 50, 128])
def test_flip_of_probability_one_mirrors_left_and_right_only(size: int) -> None:
    pictures = _pictures(size=size, channels=3)
    flipped = Augment(flip=1.0)(pictures, _generator())
    torch.testing.assert_close(flipped, pictures.flip(-1).float() / 255, atol=1e-4, rtol=0)


def test_flip_of_one_half_mirrors_half_of_the_images() -> None:
    pictures = _pictures(1).expand(400, 1, 32, 32)
    flipped = Augment(flip=0.5)(pictures, _generator())
    mirrored = (flipped - pictures.flip(-1) / 255).abs().amax((1, 2, 3)) < 1e-4
    same = (flipped - pictures / 255).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all() and 160 < mirrored.sum() < 240


def test_augment_is_deterministic_for_a_generator_state() -> None:
    augment = Augment(**EVERYTHING)
    first, again, other = (augment(_pictures(), _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_augment_advances_the_generator() -> None:
    augment, generator = Augment(**EVERYTHING), _generator()
    assert not torch.equal(augment(_pictures(), generator), augment(_pictures(), generator))


def test_augment_ignores_and_keeps_the_global_random_state() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = Augment(**EVERYTHING)(_pictures(), _generator())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(Augment(**EVERYTHING)(_pictures(), _generator()), first)


@pytest.mark.parametrize("name", ["rotate", "scale", "shift", "brightness", "contrast", "color", *QUALITY, "squeeze"])
def test_augment_draws_independently_per_image(name: str) -> None:
    pictures = _pictures(1, channels=3).expand(6, 3, 32, 32)
    setting: dict[str, Any] = {name: 1.0 if name in QUALITY else EVERYTHING[name]}
    changed = Augment(**setting)(pictures, _generator())
    for i in range(6):
        assert not torch.allclose(changed[i], pictures[0] / 255, atol=1e-3)
        assert all(not torch.allclose(changed[i], changed[j], atol=1e-4) for j in range(i))


@given(
    flip=st.floats(0, 1),
    rotate=st.floats(0, 180),
    scale=st.tuples(st.floats(0.2, 1), st.floats(1, 5)),
    shift=st.floats(0, 1),
    squeeze=st.floats(0, 1),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    seed=st.integers(0, 1000),
    channels=st.sampled_from([1, 3]),
    level=st.sampled_from([None, 0, 255]),
)
@settings(max_examples=40)
def test_augment_keeps_shape_and_range_for_any_settings(
    seed: int, channels: int, level: int | None, **strengths: Any
) -> None:
    pictures = _pictures(channels=channels)
    if level is not None:
        pictures.fill_(level)
    changed = Augment(**strengths)(pictures, _generator(seed))
    assert changed.dtype == torch.float32 and changed.shape == pictures.shape
    assert changed.isfinite().all() and changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_above_one_enlarges_the_face(factor: float) -> None:
    half = 8 if factor == 2 else 16  # half the side of a white square on 64 x 64 pixels
    picture = torch.zeros(1, 1, 64, 64)
    picture[..., 32 - half : 32 + half, 32 - half : 32 + half] = 1
    scaled = Augment(scale=(factor, factor))(picture, _generator())
    assert float(scaled.sum() / picture.sum()) == pytest.approx(factor**2, rel=0.05)
    assert scaled[..., 31:33, 31:33].min() == 1  # it stays in the middle


def test_scale_stays_within_its_range() -> None:
    picture = _spot(0, 0, width=4).expand(300, 1, 65, 65)
    areas = Augment(scale=(0.8, 1.25))(picture, _generator()).sum((1, 2, 3)) / picture[0].sum()
    assert 0.8**2 * 0.99 < areas.min() < 0.75 and 1.4 < areas.max() < 1.25**2 * 1.01
    assert 120 < (areas < 1).sum() < 180  # as often smaller as larger


def test_shift_moves_both_ways_along_both_axes_within_its_range() -> None:
    picture = _spot(0, 0).expand(300, 1, 65, 65)
    rows, columns = _center(Augment(shift=0.1)(picture, _generator()))
    for moved in (rows, columns):
        assert -6.6 < moved.min() < -5.5 and 5.5 < moved.max() < 6.6  # a tenth of 65 pixels
        assert abs(moved.mean()) < 0.6
    assert abs(torch.corrcoef(torch.stack((rows, columns)))[0, 1]) < 0.2  # one axis says nothing about the other


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_rotation_turns_both_ways_about_the_center_within_its_range(flip: float) -> None:
    picture = _spot(-20, 0).expand(300, 1, 65, 65)  # above the middle, so that a mirror leaves it there
    rows, columns = _center(Augment(rotate=30.0, flip=flip)(picture, _generator()))
    angles = torch.rad2deg(torch.atan2(columns, -rows))
    assert -31 < angles.min() < -28 and 28 < angles.max() < 31
    torch.testing.assert_close(torch.hypot(rows, columns), torch.full((300,), 20.0), atol=0.5, rtol=0)


def test_rotation_does_not_shear() -> None:
    right, top = _spot(0, 15)[None], _spot(-15, 0)[None]
    augment = Augment(rotate=45.0)
    for seed in range(10):
        (row, column), (up, across) = (_center(augment(picture, _generator(seed))) for picture in (right, top))
        assert abs(float(row * up + column * across)) < 6  # of 15 x 15: still at a right angle
        assert math.hypot(float(row), float(column)) == pytest.approx(15, abs=0.5)


def test_brightness_adds_one_amount_to_all_pixels_of_an_image() -> None:
    picture = torch.full((200, 1, 8, 8), 0.5)
    picture[..., :4] = 0.4
    change = Augment(brightness=0.2)(picture, _generator()) - picture
    torch.testing.assert_close(change, change[..., :1, :1].expand_as(change))
    assert -0.2 <= change.min() < -0.18 and 0.18 < change.max() <= 0.2001


def test_contrast_spreads_gray_levels_about_mid_gray() -> None:
    picture = torch.tensor([0.3, 0.5, 0.7]).expand(200, 1, 1, 3)
    changed = Augment(contrast=0.25)(picture, _generator())
    torch.testing.assert_close(changed[..., 1], torch.full((200, 1, 1), 0.5))
    gain = (changed[..., 2] - changed[..., 0]) / 0.4
    assert 0.749 < gain.min() < 0.78 and 1.22 < gain.max() < 1.251


def test_border_pixels_are_replicated() -> None:
    white = torch.ones(50, 1, 32, 32)
    moved = Augment(rotate=45.0, scale=(0.5, 0.8), shift=0.3)(white, _generator())
    torch.testing.assert_close(moved, white)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_effects_together_are_deterministic_for_a_generator_state(channels: int) -> None:
    augment, pictures = Augment(**EVERYTHING), _pictures(16, channels=channels)
    first, again, other = (augment(pictures, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


# Printed by the first version of `Augment`, which knew these six strengths only.
LIGHT = [[0.9226, 0.6264, 0.2887, 0.0], [1.0, 0.7027, 0.3119, 0.0]]


def test_light_preset_is_unchanged_by_newer_strengths() -> None:
    light: dict[str, Any] = {
        "flip": 0.5,
        "rotate": 8.0,
        "scale": (0.92, 1.08),
        "shift": 0.04,
        "brightness": 0.1,
        "contrast": 0.15,
    }
    row = torch.arange(16).mul(17).repeat(2, 1, 16, 1)
    changed = Augment(**light)(row.to(torch.uint8), _generator(3))[:, 0, 8, ::5]
    torch.testing.assert_close(changed, torch.tensor(LIGHT), atol=1e-4, rtol=0)


# Printed by the last version of `Augment` that knew those of `BEFORE` only, as was the number drawn next.
WITHOUT_COMPRESSION = [[0.1379, 0.3301, 0.5223, 0.7144], [1.0, 0.8037, 0.4856, 0.1674]]
WITHOUT_COMPRESSION += [[0.0133, 0.3123, 0.6113, 0.8803], [0.0, 0.1872, 0.6511, 0.3541]]
DRAWN_NEXT = 401221


def test_older_strengths_give_unchanged_images() -> None:
    row = torch.arange(16).mul(17).repeat(4, 3, 16, 1).to(torch.uint8)
    changed = Augment(**BEFORE | {"compress": 0.0})(row, _generator(2))[:, 1, 5, ::5]
    torch.testing.assert_close(changed, torch.tensor(WITHOUT_COMPRESSION), atol=1e-4, rtol=0)
    generator = _generator(2)
    Augment(**BEFORE)(row, generator)
    assert int(torch.randint(10**6, (1,), generator=generator)) == DRAWN_NEXT


@pytest.mark.parametrize("name", [*QUALITY, "squeeze"])
def test_zero_strength_draws_no_random_numbers(name: str) -> None:
    names = {name, "resolution_scale", "sharpen_amount", "noise_sigma"}
    without, generators = BEFORE | {key: EVERYTHING[key] for key in names} | {name: 0.0}, (_generator(), _generator())
    never, before = (Augment(**one)(_pictures(8), by) for one, by in zip((without, BEFORE), generators, strict=True))
    assert torch.equal(never, before) and torch.equal(*(generator.get_state() for generator in generators))


def _grads(pictures: Tensor) -> Tensor:
    return pictures.diff(dim=-1).square().mean((1, 2, 3)) + pictures.diff(dim=-2).square().mean((1, 2, 3))


def test_gray_of_probability_one_puts_the_luma_into_every_channel() -> None:
    pictures = _pictures(channels=3)
    changed = Augment(gray=1.0)(pictures, _generator())
    luma = (pictures * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True) / 255
    torch.testing.assert_close(changed, luma.expand_as(changed))


def test_color_changes_saturation_and_channel_gains_within_range() -> None:
    gray = torch.full((300, 3, 1, 1), 0.5)
    gains = (Augment(color=0.4)(gray, _generator()) / gray).flatten(1)
    luma = gains @ torch.tensor([0.299, 0.587, 0.114])
    assert 0.8 < luma.min() < 0.87 and 1.13 < luma.max() < 1.2  # half of 0.4, which saturation leaves
    assert (gains.amax(1) - gains.amin(1)).mean() > 0.1  # the channels' gains are their own
    red = torch.tensor([0.6, 0.4, 0.4]).view(3, 1, 1).expand(300, 3, 1, 1)
    saturation = Augment(color=0.4)(red, _generator())
    spread = (saturation[:, 0] - saturation[:, 1:].mean(1)).flatten() / 0.2
    assert spread.min() < 0.7 and spread.max() > 1.3


@pytest.mark.parametrize("name", ["color", "gray"])
def test_color_does_not_change_gray_images(name: str) -> None:
    pictures, strengths = _pictures(channels=1), dict[str, Any]({name: 1.0})
    assert torch.equal(Augment(**strengths)(pictures, _generator()), pictures.float() / 255)


@pytest.mark.parametrize("name", ["gray", "blur", "compress", "erase", *QUALITY])
def test_effects_apply_to_the_configured_fraction_of_images(name: str) -> None:
    pictures = _pictures(1, size=16, channels=3).expand(400, 3, 16, 16)
    strengths: dict[str, Any] = {name: 0.25, "blur_sigma": (0.05, 0.1)}
    changed = Augment(**strengths)(pictures, _generator())
    apart = (changed - pictures / 255).abs().amax((1, 2, 3))
    assert 70 < (apart > 1e-3).sum() < 130
    assert apart[apart <= 1e-3].max() < 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_removes_detail_and_keeps_the_mean(channels: int) -> None:
    pictures = _pictures(20, channels=channels)
    blurred = Augment(blur=1.0, blur_sigma=(0.02, 0.05))(pictures, _generator())  # 0.64 to 1.6 of 32 pixels
    left = _grads(blurred) / _grads(pictures / 255)
    assert left.max() < 0.5 and left.min() < 0.6 * left.max()
    torch.testing.assert_close(blurred.mean((1, 2, 3)), (pictures / 255).mean((1, 2, 3)), atol=0.02, rtol=0)


def test_blur_width_scales_with_the_image() -> None:
    spreads = []
    for size in (33, 99):
        point = torch.zeros(1, 1, size, size)
        point[..., size // 2, size // 2] = 1
        steps = torch.arange(size) - size // 2
        blurred = Augment(blur=1.0, blur_sigma=(0.05, 0.05))(point, _generator())
        spreads.append(float((blurred.sum((0, 1, 2)) * steps.square()).sum().sqrt()) / size)
    assert spreads == [pytest.approx(0.05, rel=0.05)] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_removes_detail_by_its_quality_and_keeps_the_mean(channels: int) -> None:
    smooth = Augment(blur=1.0, blur_sigma=(0.06, 0.06))(_pictures(8, 64, channels), _generator())
    losses = []
    for quality in (10, 50, 95):
        compressed = Augment(compress=1.0, compress_quality=(quality, quality))(smooth, _generator())
        torch.testing.assert_close(compressed.mean((2, 3)), smooth.mean((2, 3)), atol=0.02, rtol=0)
        losses.append(float((compressed - smooth).abs().mean()))
    assert losses[0] > losses[1] > losses[2] and losses[2] < 2 / 255


def test_erase_changes_the_configured_area_only() -> None:
    pictures = torch.full((300, 3, 64, 64), 2.0)  # no noise is that bright
    erased = (Augment(erase=1.0, erase_area=(0.1, 0.4))(pictures, _generator()) < 2).all(1)
    rows, columns = erased.any(2), erased.any(1)
    assert torch.equal(erased, rows[:, :, None] & columns[:, None, :])  # nothing but one rectangle, filled
    area = erased.float().mean((1, 2))
    assert 0.08 < area.min() < 0.13 and 0.37 < area.max() < 0.42
    aspect = rows.sum(1) / columns.sum(1)
    assert 0.25 < aspect.min() < 0.5 and 2 < aspect.max() < 4
    assert erased.any(0)[4:-4, 4:-4].all()  # anywhere in the picture; a corner is seldom met


def test_erase_of_the_whole_image_fits() -> None:
    pictures = torch.full((20, 1, 16, 16), 2.0)
    assert (Augment(erase=1.0, erase_area=(1.0, 1.0))(pictures, _generator()) < 1).all()


def test_erase_fills_with_noise() -> None:
    erased = Augment(erase=1.0, erase_area=(1.0, 1.0))(torch.zeros(1, 3, 32, 32), _generator())
    assert erased.mean().item() == pytest.approx(0.5, abs=0.05) and erased.std() > 0.25


def test_noise_has_the_configured_deviations() -> None:
    changed = Augment(noise=1.0, noise_sigma=(0.01, 0.1))(torch.full((300, 3, 32, 32), 0.5), _generator())
    sigma = (changed - 0.5).std((2, 3))
    assert 0.009 < sigma.min() < 0.016 and 0.094 < sigma.max() < 0.108
    assert sigma.mean().item() == pytest.approx(0.055, abs=0.006)
    assert (changed.mean((2, 3)) - 0.5).abs().max() < 0.1 / 32 * 4  # four standard errors


def test_noise_is_half_luminance_and_half_per_channel() -> None:
    changed = Augment(noise=1.0, noise_sigma=(0.05, 0.05))(torch.full((300, 3, 16, 16), 0.5), _generator())
    red, green, blue = (changed - 0.5).flatten(2).unbind(1)
    same = (red == green).all(1) & (red == blue).all(1)
    assert 120 < same.sum() < 180
    for one, other in ((red, green), (red, blue), (green, blue)):
        related = (one * other)[~same].mean(1) / 0.05**2
        assert related.abs().max() < 4 / 16  # four standard errors: the channels know nothing of each other


def test_noise_is_white_and_independent_per_image() -> None:
    changed = Augment(noise=1.0, noise_sigma=(0.05, 0.05))(torch.full((50, 1, 32, 32), 0.5), _generator())
    noise = (changed[:, 0] - 0.5) / 0.05
    beside, below = (noise[..., 1:] * noise[..., :-1]).mean((1, 2)), (noise[:, 1:] * noise[:, :-1]).mean((1, 2))
    others = (noise[1:] * noise[:-1]).mean((1, 2))
    assert max(related.abs().max() for related in (beside, below, others)) < 4.5 / 32


def test_sharpening_adds_detail_by_its_amount_and_keeps_the_mean() -> None:
    smooth = Augment(blur=1.0, blur_sigma=(0.03, 0.03))(_pictures(200, 32), _generator())
    gained = (_grads(Augment(sharpen=1.0, sharpen_amount=(3.0, 10.0))(smooth, _generator())) / _grads(smooth)).sqrt()
    assert gained.min() > 1 and gained.max() > 1.5 * gained.min()
    sharp = Augment(sharpen=1.0, sharpen_amount=(0.3, 0.3))(smooth, _generator())
    torch.testing.assert_close(sharp.mean((2, 3)), smooth.mean((2, 3)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.9])
def test_resolution_equals_scaling_down_by_the_factor_and_up_again(scale: float) -> None:
    pictures = _pictures(2, 40, channels=3).float() / 255
    changed = Augment(resolution=1.0, resolution_scale=(scale, scale))(pictures, _generator())
    small = functional.interpolate(pictures, round(40 * scale), mode="bilinear", antialias=True)
    torch.testing.assert_close(changed, functional.interpolate(small, 40, mode="bilinear"), atol=1e-5, rtol=0)


def test_resolution_stays_within_its_range() -> None:
    pictures = _pictures(1, 64).float().div(255).expand(200, 1, 64, 64)
    left = _grads(Augment(resolution=1.0, resolution_scale=(0.25, 0.9))(pictures, _generator()))
    ends = [
        float(_grads(Augment(resolution=1.0, resolution_scale=(end, end))(pictures[:1], _generator())))
        for end in (0.25, 0.9)
    ]
    assert ends[0] <= left.min() < ends[0] * 1.2 and ends[1] * 0.85 < left.max() <= ends[1]


@pytest.mark.parametrize("squeeze", [0.1, 0.34])
def test_squeeze_changes_the_aspect_ratio_within_range_and_keeps_the_area(squeeze: float) -> None:
    picture = _spot(0, 0, size=65, width=6).expand(300, 1, 65, 65)
    squeezed = Augment(squeeze=squeeze)(picture, _generator())
    steps = (torch.arange(65.0) - 32).square()
    mass = squeezed.sum((1, 2, 3))
    height, width = (((squeezed.sum((1, axis)) * steps).sum(1) / mass).sqrt() for axis in (3, 2))
    aspect, most = width / height, 1 + squeeze
    assert 0.99 / most < aspect.min() < 1.1 / most and most / 1.1 < aspect.max() < most * 1.01
    assert 120 < (aspect > 1).sum() < 180  # as often wider as narrower
    torch.testing.assert_close(mass, picture[0].sum().expand(300), rtol=0.01, atol=0)
    rows, columns = _center(squeezed)
    assert max(rows.abs().max(), columns.abs().max()) < 0.1  # about the middle


def test_squeeze_follows_the_image_axes_under_rotation() -> None:
    """A 4:3 picture shown as a square is squeezed as a whole: a disk's main axes stay upright and level."""
    picture = _spot(0, 0, size=65, width=6).expand(100, 1, 65, 65)
    turned = Augment(squeeze=0.5, rotate=90.0, flip=0.5)(picture, _generator())
    steps = torch.arange(65.0) - 32
    mixed = (turned[:, 0] * steps[:, None] * steps).sum((1, 2)) / turned.sum((1, 2, 3))
    assert mixed.abs().max() < 0.1  # of 36 square pixels


def test_effects_run_in_the_order_blur_resolution_sharpening_jpeg() -> None:
    sure: list[dict[str, Any]] = [
        {"blur": 1.0, "blur_sigma": (0.02, 0.02)},
        {"resolution": 1.0, "resolution_scale": (0.5, 0.5)},
        {"sharpen": 1.0, "sharpen_amount": (1.0, 1.0)},
        {"compress": 1.0, "compress_quality": (40, 40)},
    ]
    pictures = _pictures(4, channels=3)
    one_by_one = pictures.float() / 255
    for step in sure:
        one_by_one = Augment(**step)(one_by_one, _generator())
    at_once = Augment(**{name: value for step in sure for name, value in step.items()})(pictures, _generator())
    torch.testing.assert_close(at_once, one_by_one)


def test_effects_run_in_the_order_sharpening_noise_jpeg_erase() -> None:
    plain = torch.full((20, 1, 64, 64), 0.5)
    sharp: dict[str, Any] = {"noise": 1.0, "noise_sigma": (0.02, 0.02), "sharpen": 1.0}
    assert Augment(**sharp)(plain, _generator()).std().item() == pytest.approx(0.02, rel=0.03)  # not made stronger
    compressed: dict[str, Any] = sharp | {"compress": 1.0, "compress_quality": (10, 10)}
    assert Augment(**compressed)(plain, _generator()).std() < 0.005  # which takes the noise
    erased = Augment(**compressed, erase=1.0, erase_area=(1.0, 1.0))(plain, _generator())
    assert erased.std().item() == pytest.approx(12**-0.5, rel=0.02)  # uniform noise as it was drawn


@given(
    color=st.floats(0, 1),
    gray=st.floats(0, 1),
    blur=st.floats(0, 1),
    blur_sigma=st.tuples(st.floats(1e-6, 0.02), st.floats(0.02, 0.1)),
    resolution=st.floats(0, 1),
    resolution_scale=st.tuples(st.floats(1e-6, 0.5), st.floats(0.5, 1)),
    sharpen=st.floats(0, 1),
    sharpen_amount=st.tuples(st.floats(1e-6, 1), st.floats(1, 10)),
    noise=st.floats(0, 1),
    noise_sigma=st.tuples(st.floats(1e-6, 0.1), st.floats(0.1, 1)),
    compress=st.floats(0, 1),
    compress_quality=st.tuples(st.integers(1, 50), st.integers(50, 100)),
    erase=st.floats(0, 1),
    erase_area=st.tuples(st.floats(1e-6, 0.5), st.floats(0.5, 1)),
    seed=st.integers(0, 1000),
    channels=st.sampled_from([1, 3]),
    size=st.integers(8, 40),
    count=st.integers(1, 5),
)
@example(  # white stays white, to the last digit
    **{"color": 1.0, "gray": 0.0, "blur": 1.0, "blur_sigma": (0.015625, 0.0234375), "compress": 0.0},
    **{"compress_quality": (1, 50), "erase": 0.0, "erase_area": (0.5, 1.0)},
    **{"resolution": 0.0, "resolution_scale": (0.5, 0.5), "sharpen": 0.0, "sharpen_amount": (1.0, 1.0)},
    **{"noise": 0.0, "noise_sigma": (0.1, 0.1)},
    **{"seed": 362, "channels": 3, "size": 9, "count": 2},
)
@settings(max_examples=25)
def test_degradations_keep_shape_and_range_for_any_settings(
    seed: int, channels: int, size: int, count: int, **strengths: Any
) -> None:
    pictures = _pictures(count, size, channels).contiguous(memory_format=torch.channels_last)
    changed = Augment(**strengths)(pictures, _generator(seed))
    assert changed.dtype == torch.float32 and changed.shape == pictures.shape
    assert changed.isfinite().all() and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(changed, Augment(**strengths)(pictures.contiguous(), _generator(seed)))


SHARE = "must lie between 0 and 1"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(({name: 1.5}, f"augment.{name}=1.5 {SHARE}") for name in ("flip", "shift", "brightness", "contrast")),
        *(({name: 1.5}, f"augment.{name}=1.5 {SHARE}") for name in ("squeeze", "resolution", "sharpen", "noise")),
        *(({name: -0.1}, f"augment.{name}=-0.1 {SHARE}") for name in ("color", "gray", "blur", "compress", "erase")),
        ({"erase": math.nan}, f"augment.erase=nan {SHARE}"),
        ({"rotate": 181.0}, "augment.rotate=181.0 must lie between 0 and 180"),
        ({"scale": [1.2, 0.8]}, "augment.scale=[1.2, 0.8] must be two factors above zero, the smaller one first"),
        ({"scale": [0.0, 1.0]}, "augment.scale=[0.0, 1.0] must be two factors above zero, the smaller one first"),
        ({"scale": [1.0, math.inf]}, "augment.scale=[1.0, inf] must be two factors above zero, the smaller one first"),
        ({"blur_sigma": [0.0, 0.1]}, "augment.blur_sigma=[0.0, 0.1] must be two fractions of the side, above 0"),
        ({"blur_sigma": [1.0, 2.0]}, "augment.blur_sigma=[1.0, 2.0] must be two fractions of the side, above 0"),
        ({"resolution_scale": [0.5, 1.1]}, "augment.resolution_scale=[0.5, 1.1] must be two fractions of the side"),
        ({"sharpen_amount": [0.0, 1.0]}, "augment.sharpen_amount=[0.0, 1.0] must be two amounts, above 0 and up to 10"),
        ({"noise_sigma": [0.05, 10.0]}, "augment.noise_sigma=[0.05, 10.0] must be two fractions of full white"),
        ({"compress_quality": [50, 101]}, "augment.compress_quality=[50, 101] must be two whole numbers from 1 to 100"),
        ({"compress_quality": [0, 50]}, "augment.compress_quality=[0, 50] must be two whole numbers from 1 to 100"),
        ({"erase_area": [0.1]}, "augment.erase_area=[0.1] must be two fractions of the image, above 0 and up to 1"),
        ({"erase_area": [0.1, 1.1]}, "augment.erase_area=[0.1, 1.1] must be two fractions of the image, above 0"),
    ],
)
def test_augment_refuses_an_invalid_strength_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(AgeGenderError) as refused:
        Augment(**wrong)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.parametrize("option", ["light", "medium", "strong", "robust"])
def test_augment_does_not_synchronize_with_the_device(option: str) -> None:
    """PyTorch's meta device has no values: whoever asks for one, and so waits for a device, gets an error."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "augment" / f"{option}.yaml"))
    settings, _ = split_settings(settings)
    settings.pop("_target_")
    pictures = torch.empty(16, 3, 32, 32, dtype=torch.uint8, device="meta")
    assert Augment(**settings)(pictures, _generator()).shape == pictures.shape
