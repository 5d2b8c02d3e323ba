"""Image effects: each changes the pixels by its parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as torch_functional

from agegender.data.augmentation import functional


def _pictures(count: int = 3, channels: int = 3, size: int = 24) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(4))


@given(
    theta=st.lists(st.floats(-2, 2, width=32), min_size=12, max_size=12),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
@settings(max_examples=50)
def test_warp_equals_grid_sample(theta: list[float], channels: int, height: int, width: int) -> None:
    pictures, maps = torch.rand(2, channels, height, width), torch.tensor(theta).view(2, 2, 3)
    grid = torch_functional.affine_grid(maps, [2, channels, height, width], align_corners=False)
    expected = torch_functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(functional.affine_warp(pictures, maps), expected, atol=1e-4, rtol=0)


def test_map_colors_works_per_image_and_clamps() -> None:
    pictures = _pictures(2)
    matrix = torch.stack((torch.eye(3).flip(0), 3 * torch.eye(3)))
    changed = functional.color_affine(pictures, matrix, torch.tensor([[0.0, 0, 0], [-1, 0, 0]]))
    torch.testing.assert_close(changed[0], pictures[0].flip(0))
    torch.testing.assert_close(changed[1, 0], (3 * pictures[1, 0] - 1).clamp(0, 1))
    torch.testing.assert_close(changed[1, 1:], (3 * pictures[1, 1:]).clamp(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_spreads_a_point_as_a_gaussian_of_each_images_width(channels: int) -> None:
    sigma = torch.tensor([0.8, 2.5])
    point = torch.zeros(2, channels, 41, 41)
    point[..., 20, 20] = 1
    blurred = functional.blur(point, sigma)
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(2, channels))
    steps = torch.arange(41.0) - 20
    for axis in (2, 3):
        spread = (blurred.sum(axis) * steps.square()).sum(-1).sqrt()
        torch.testing.assert_close(spread, sigma[:, None].expand(2, channels), rtol=0.03, atol=0)


def test_blur_keeps_a_constant_image_constant() -> None:
    plain = torch.full((2, 3, 10, 10), 0.7)
    torch.testing.assert_close(functional.blur(plain, torch.tensor([0.5, 9.0])), plain)


def test_sharpening_adds_each_images_amount_of_the_blurred_detail() -> None:
    pictures, amount, sigma = _pictures() / 2 + 0.25, torch.tensor([0.0, 0.4, 1.5]), torch.tensor([1.0, 0.7, 2.0])
    sharp = functional.sharpen(pictures, amount, sigma)
    expected = pictures + amount.view(3, 1, 1, 1) * (pictures - functional.blur(pictures, sigma))
    assert expected.max() > 1
    torch.testing.assert_close(sharp, expected.clamp(0, 1))
    torch.testing.assert_close(sharp[0], pictures[0])


@pytest.mark.parametrize("noise_channels", [1, 3])
def test_noise_has_each_images_deviation_and_is_clamped(noise_channels: int) -> None:
    pictures, sigma = _pictures(), torch.tensor([0.0, 0.05, 0.5])
    noise = torch.randn(3, noise_channels, 24, 24, generator=torch.Generator().manual_seed(1))
    noisy = functional.add_noise(pictures, sigma, noise)
    torch.testing.assert_close(noisy, (pictures + sigma.view(3, 1, 1, 1) * noise).clamp(0, 1))
    assert torch.equal(noisy[0], pictures[0])


@given(
    sides=st.lists(st.integers(2, 40), min_size=3, max_size=3),
    channels=st.sampled_from([1, 3]),
    size=st.integers(2, 40),
)
@settings(max_examples=50)
def test_rescale_equals_pytorch_interpolation(sides: list[int], channels: int, size: int) -> None:
    pictures, sides = _pictures(3, channels, size), [min(side, size) for side in sides]
    scaled = functional.resample(pictures, torch.tensor(sides))
    for picture, result, side in zip(pictures, scaled, sides, strict=True):
        small = torch_functional.interpolate(picture[None], side, mode="bilinear", antialias=True)
        expected = torch_functional.interpolate(small, size, mode="bilinear")
        torch.testing.assert_close(result[None], expected, atol=1e-4, rtol=0)


def test_rescale_keeps_the_proportions_of_an_oblong_image() -> None:
    pictures = torch.rand(1, 3, 30, 45, generator=torch.Generator().manual_seed(2))
    small = torch_functional.interpolate(pictures, (10, 15), mode="bilinear", antialias=True)
    expected = torch_functional.interpolate(small, (30, 45), mode="bilinear")
    torch.testing.assert_close(functional.resample(pictures, torch.tensor([15])), expected, atol=1e-5, rtol=0)


def test_rescale_to_one_pixel_is_constant_and_to_full_size_the_identity() -> None:
    pictures = _pictures(2)
    one, same = functional.resample(pictures, torch.tensor([1, 24]))
    torch.testing.assert_close(one, one[:, :1, :1].expand_as(one))
    torch.testing.assert_close(same, pictures[1])


def test_erase_changes_its_rectangle_only() -> None:
    pictures, noise = _pictures(2, size=20), torch.full((3, 20, 20), 2.0)
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0]])
    erased = functional.erase(pictures, boxes, noise)
    expected = pictures.clone()
    expected[0, :, 2:12, 4:9] = 2
    expected[1] = 2
    assert torch.equal(erased, expected)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_effects_ignore_the_memory_format_and_keep_their_input(memory: torch.memory_format) -> None:
    pictures = _pictures(2).contiguous(memory_format=memory)
    before = pictures.clone()
    numbers = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    changed = (
        functional.affine_warp(pictures, numbers[:, :2, :3]),
        functional.color_affine(pictures, numbers[..., :3], numbers[..., 3]),
        functional.blur(pictures, torch.tensor([1.0, 2.0])),
        functional.sharpen(pictures, numbers[:, 0, 0], torch.tensor([1.0, 2.0])),
        functional.add_noise(pictures, numbers[:, 0, 0], numbers[:, :1, :1, None]),
        functional.resample(pictures, torch.tensor([5, 20])),
        functional.erase(pictures, numbers[:, 0] / 2, torch.zeros(3, 24, 24)),
    )
    plain = before.contiguous()
    expected = (
        functional.affine_warp(plain, numbers[:, :2, :3]),
        functional.color_affine(plain, numbers[..., :3], numbers[..., 3]),
        functional.blur(plain, torch.tensor([1.0, 2.0])),
        functional.sharpen(plain, numbers[:, 0, 0], torch.tensor([1.0, 2.0])),
        functional.add_noise(plain, numbers[:, 0, 0], numbers[:, :1, :1, None]),
        functional.resample(plain, torch.tensor([5, 20])),
        functional.erase(plain, numbers[:, 0] / 2, torch.zeros(3, 24, 24)),
    )
    assert torch.equal(pictures, before)
    for one, other in zip(changed, expected, strict=True):
        assert one.shape == pictures.shape
        torch.testing.assert_close(one, other)
