"""What augmentation does to pixels once the numbers are drawn: whole batches, on the device they are on.

All functions take float pictures `[count, channels, height, width]` in [0, 1], return such pictures, and leave what
they were given as it was. The numbers may lie on the CPU: moving them doesn't wait for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue: ITU-R BT.601, as in JPEG


def to_device_of(numbers: Tensor, images: Tensor) -> Tensor:
    """Returns the numbers on the pictures' device, without waiting for it."""
    return numbers.to(images.device, non_blocking=True)


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Moves pixels by affine maps, interpolating once; the border is continued.

    Args:
        images: Pictures.
        theta: `[count, 2, 3]`, from output to input coordinates, which are -1 and 1 at the outer edges.
    """
    height, width = images.shape[-2:]
    rows, columns = ((2 * torch.arange(side, device=images.device) + 1) / side - 1 for side in (height, width))
    # The same as affine_grid, which takes most of the sampling's own time: per row plus per column, x and y apart.
    by_column, by_row, shift = to_device_of(theta, images).unsqueeze(-1).unbind(2)
    grid = (by_column * columns)[:, :, None, :] + (by_row * rows + shift)[:, :, :, None]
    return functional.grid_sample(images, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def recolour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Maps each pixel's channels by its picture's matrix and offset, and cuts at 0 and 1.

    Args:
        images: Pictures.
        matrix: `[count, channels, channels]`, from the channels that are to those that will be.
        offset: `[count, channels]`.
    """
    pixels = torch.baddbmm(to_device_of(offset, images).unsqueeze(2), to_device_of(matrix, images), images.flatten(2))
    return pixels.clamp_(0, 1).view(images.shape)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blurs by a Gaussian, along the rows and then along the columns; the border is continued.

    Args:
        images: Pictures.
        sigma: Standard deviations `[count]` in pixels, on the CPU.
    """
    count, channels, height, width = images.shape
    radius = math.ceil(3 * float(sigma.max()))
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernels = (-(steps / sigma.view(-1, 1)).square() / 2).softmax(1).repeat_interleave(channels, 0)
    kernels = to_device_of(kernels, images).view(-1, 1, 1, 2 * radius + 1)
    # Each channel of each picture is a group of its own: a kernel per picture in a single convolution.
    planes = functional.pad(images.reshape(1, -1, height, width), (radius,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernels, groups=count * channels)
    blurred = functional.conv2d(planes, kernels.transpose(2, 3), groups=count * channels).view(images.shape)
    return blurred.clamp_(0, 1)  # a kernel's weights may add up to a last digit more than 1


def sharpen(images: Tensor, amount: Tensor, sigma: Tensor) -> Tensor:
    """Adds what a blur would take away, several times over: an unsharp mask, as cameras and phones apply.

    Args:
        images: Pictures.
        amount: How much of it is added `[count]`, on the CPU; 1 doubles the detail.
        sigma: Standard deviations of the blur `[count]` in pixels, on the CPU.
    """
    beyond = to_device_of(1 + amount, images).view(-1, 1, 1, 1)  # the way from the blurred picture to the given one
    return blur(images, sigma).lerp_(images, beyond).clamp_(0, 1)


def add_noise(images: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Adds white Gaussian noise, and cuts at 0 and 1.

    Args:
        images: Pictures.
        sigma: Standard deviations `[count]` as shares of full white, on the CPU.
        noise: Of mean 0 and deviation 1, `[count, channels, height, width]`, or one channel for all; on the CPU or
            the pictures' device.
    """
    strength = to_device_of(sigma, images).view(-1, 1, 1, 1)
    return torch.addcmul(images, strength, to_device_of(noise, images)).clamp_(0, 1)


def resample(images: Tensor, side: Tensor) -> Tensor:
    """Scales pictures down, antialiased, and up again, both bilinearly: what a small file leaves of a face.

    Args:
        images: Pictures.
        side: Widths `[count]` in pixels, int64, at least 1, on the CPU, that they are scaled down to; heights follow
            in proportion. A side as large as the picture's changes nothing.
    """
    count, channels, height, width = images.shape
    by_column = by_row = to_device_of(_there_and_back(side, width), images)
    if height != width:
        heights = (side * height / width).round().long().clamp_min(1)
        by_row = to_device_of(_there_and_back(heights, height), images)
    # The channels lie side by side for the first product and one above the other for the second: one matrix serves all.
    lines = by_row @ images.transpose(1, 2).reshape(count, height, channels * width)
    lines = lines.view(count, height * channels, width) @ by_column.transpose(1, 2)
    # Weights may add up to a last digit more than 1.
    return lines.clamp_(0, 1).view(count, height, channels, width).transpose(1, 2).contiguous()


def _there_and_back(small: Tensor, side: int) -> Tensor:
    """Returns `[count, side, side]`, per picture the scaling of an axis to a smaller number of pixels and back.

    The weights are those of PyTorch's `interpolate`: going down, a triangle that reaches over the neighboring pixels.
    """
    small = small.view(-1, 1, 1)
    steps = torch.arange(int(small.max()))  # a row per pixel of the largest; the way back reads no row beyond its own
    pixels, factor = torch.arange(side), side / small
    down = (1 - ((pixels + 0.5) - (steps.view(-1, 1) + 0.5) * factor).abs() / factor.clamp_min(1)).clamp_(min=0)
    down /= down.sum(2, keepdim=True).clamp_min(1e-6)
    places = ((pixels.view(-1, 1) + 0.5) / factor - 0.5).clamp_min(0).minimum(small - 1)
    return (1 - (places - steps).abs()).clamp_(min=0) @ down


def erase(images: Tensor, boxes: Tensor, noise: Tensor) -> Tensor:
    """Puts noise in place of a rectangle of each picture.

    Args:
        images: Pictures.
        boxes: Top, left, height and width `[count, 4]`, as shares of the sides.
        noise: `[channels, height, width]`; each picture takes the part that its rectangle covers.
    """
    inside = []
    for axis, side in enumerate(images.shape[-2:]):
        middles = (torch.arange(side, device=images.device) + 0.5) / side
        start, length = to_device_of(boxes, images)[:, axis::2].unsqueeze(-1).unbind(1)
        inside.append((middles >= start) & (middles < start + length))
    rows, columns = inside
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], to_device_of(noise, images), images)
