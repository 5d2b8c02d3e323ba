"""Batched image operations with given parameters, used by augmentation and corruptions, on any device.

All functions take float images `[count, channels, height, width]` in [0, 1], return new ones of the same shape and
don't modify their arguments. Parameters may be on the CPU: their transfer doesn't block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue: ITU-R BT.601, as in JPEG


def like_device(numbers: Tensor, images: Tensor) -> Tensor:
    """Return `numbers` on the device of `images`, without blocking."""
    return numbers.to(images.device, non_blocking=True)


def affine_warp(images: Tensor, theta: Tensor) -> Tensor:
    """Warp images by affine maps, with one bilinear interpolation and replicated borders.

    Args:
        images: Images.
        theta: `[count, 2, 3]`, from output to input coordinates; the outer edges are at -1 and 1.
    """
    height, width = images.shape[-2:]
    rows, columns = ((2 * torch.arange(side, device=images.device) + 1) / side - 1 for side in (height, width))
    # Equal to affine_grid, which takes most of the sampling's time: here x and y are sums of a row and a column term.
    by_column, by_row, shift = like_device(theta, images).unsqueeze(-1).unbind(2)
    grid = (by_column * columns)[:, :, None, :] + (by_row * rows + shift)[:, :, :, None]
    return functional.grid_sample(images, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def color_affine(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Apply an affine color transform to each image, and clamp to [0, 1].

    Args:
        images: Images.
        matrix: `[count, channels, channels]`, output by input channels.
        offset: `[count, channels]`.
    """
    pixels = torch.baddbmm(like_device(offset, images).unsqueeze(2), like_device(matrix, images), images.flatten(2))
    return pixels.clamp_(0, 1).view(images.shape)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Apply a separable Gaussian blur with replicated borders.

    Args:
        images: Images.
        sigma: Standard deviations `[count]` in pixels, on the CPU.
    """
    count, channels, height, width = images.shape
    radius = math.ceil(3 * float(sigma.max()))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = (-(steps / sigma.view(-1, 1)).square() / 2).softmax(1).repeat_interleave(channels, 0)
    kernels = like_device(kernels, images).view(-1, 1, 1, 2 * radius + 1)
    # Each channel of each image is a group: a single convolution with a kernel per image.
    planes = functional.pad(images.reshape(1, -1, height, width), (radius,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernels, groups=count * channels)
    blurred = functional.conv2d(planes, kernels.transpose(2, 3), groups=count * channels).view(images.shape)
    return blurred.clamp_(0, 1)  # a kernel's weights may sum to slightly more than 1


def sharpen(images: Tensor, amount: Tensor, sigma: Tensor) -> Tensor:
    """Apply an unsharp mask, as cameras and phones do: add a multiple of the detail that a blur removes.

    Args:
        images: Images.
        amount: Multiples of the detail `[count]`, on the CPU; 1 doubles it.
        sigma: Standard deviations of the blur `[count]` in pixels, on the CPU.
    """
    beyond = like_device(1 + amount, images).view(-1, 1, 1, 1)  # extrapolates from the blurred image past the input
    return blur(images, sigma).lerp_(images, beyond).clamp_(0, 1)


def add_noise(images: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Add white Gaussian noise, and clamp to [0, 1].

    Args:
        images: Images.
        sigma: Standard deviations `[count]` as fractions of full white, on the CPU.
        noise: Standard normal, `[count, channels, height, width]` or with a single channel; on the CPU or the images'
            device.
    """
    strength = like_device(sigma, images).view(-1, 1, 1, 1)
    return torch.addcmul(images, strength, like_device(noise, images)).clamp_(0, 1)


def resample(images: Tensor, side: Tensor) -> Tensor:
    """Downscale (antialiased) and upscale images, both bilinearly, to simulate a low resolution.

    Args:
        images: Images.
        side: Intermediate widths `[count]` in pixels, int64, at least 1, on the CPU; heights keep the aspect ratio. The
            image's own width changes nothing.
    """
    count, channels, height, width = images.shape
    by_column = by_row = like_device(_there_and_back(side, width), images)
    if height != width:
        heights = (side * height / width).round().long().clamp_min(1)
        by_row = like_device(_there_and_back(heights, height), images)
    # Channels are side by side for the first product and stacked for the second: one matrix serves all channels.
    lines = by_row @ images.transpose(1, 2).reshape(count, height, channels * width)
    lines = lines.view(count, height * channels, width) @ by_column.transpose(1, 2)
    # Weights may sum to slightly more than 1.
    return lines.clamp_(0, 1).view(count, height, channels, width).transpose(1, 2).contiguous()


def _there_and_back(small: Tensor, side: int) -> Tensor:
    """Return `[count, side, side]` matrices that downscale an axis to `small` pixels and upscale it again.

    The weights are those of PyTorch's `interpolate`; downscaling uses the antialiasing triangle filter.
    """
    small = small.view(-1, 1, 1)
    steps = torch.arange(int(small.max()))  # a row per pixel of the largest; upscaling ignores further ones
    pixels, factor = torch.arange(side), side / small
    down = (1 - ((pixels + 0.5) - (steps.view(-1, 1) + 0.5) * factor).abs() / factor.clamp_min(1)).clamp_(min=0)
    down /= down.sum(2, keepdim=True).clamp_min(1e-6)
    places = ((pixels.view(-1, 1) + 0.5) / factor - 0.5).clamp_min(0).minimum(small - 1)
    return (1 - (places - steps).abs()).clamp_(min=0) @ down


def erase(images: Tensor, boxes: Tensor, noise: Tensor) -> Tensor:
    """Replace a rectangle of each image by noise.

    Args:
        images: Images.
        boxes: Top, left, height and width `[count, 4]`, as fractions of the sides.
        noise: `[channels, height, width]`; each image takes the part under its rectangle.
    """
    inside = []
    for axis, side in enumerate(images.shape[-2:]):
        middles = (torch.arange(side, device=images.device) + 0.5) / side
        start, length = like_device(boxes, images)[:, axis::2].unsqueeze(-1).unbind(1)
        inside.append((middles >= start) & (middles < start + length))
    rows, columns = inside
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], like_device(noise, images), images)
