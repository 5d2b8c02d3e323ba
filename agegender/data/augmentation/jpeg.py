"""JPEG compression artifacts as tensor operations, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from agegender.data.augmentation.functional import LUMA, like_device

# The quantization tables of ITU-T T.81 (1992), Annex K.1: luma, then both chroma planes.
_LUMA_STEPS = """
    16 11 10 16  24  40  51  61
    12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56
    14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77
    24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103  99
"""
_CHROMA_STEPS = """
    17 18 24 47 99 99 99 99
    18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
"""
_STEPS = torch.tensor([[float(step) for step in table.split()] for table in (_LUMA_STEPS, _CHROMA_STEPS)])


def _cosines() -> Tensor:
    """Return the 8x8 cosine transform as one orthogonal matrix `[64, 64]` over a block's pixels."""
    place, frequency = torch.arange(8).float(), torch.arange(8).float().view(-1, 1)
    waves = torch.cos(math.pi / 8 * (place + 0.5) * frequency) / 2
    waves[0] /= math.sqrt(2)
    return torch.kron(waves, waves)


def _colors() -> Tensor:
    """Return the map from RGB to a luma and two chroma channels, all in the same unit (ITU-T T.871, JFIF)."""
    luma = torch.tensor(LUMA)
    red, _, blue = torch.eye(3)
    return torch.stack((luma, (blue - luma) / (2 - 2 * LUMA[2]), (red - luma) / (2 - 2 * LUMA[0])))


_COSINES = _cosines()
_TO_YCC = _colors()
_TO_RGB = torch.linalg.inv(_TO_YCC)


def jpeg_compress(images: Tensor, quality: Tensor) -> Tensor:
    """Apply the losses of baseline JPEG: quantized cosine coefficients and 4:2:0 chroma subsampling.

    Args:
        images: Float in [0, 1], `[count, channels, height, width]` with 1 or 3 channels; not modified.
        quality: `[count]`, 1 to 100 on the scale of the Independent JPEG Group's library, which Pillow uses too.

    Returns:
        Images in [0, 1] of the same shape; unlike a file's, not rounded to whole gray levels.
    """
    height, width = images.shape[-2:]
    scale = torch.where(quality < 50, 5000 / quality, 200.0 - 2 * quality).view(-1, 1, 1)
    steps = like_device(((_STEPS * scale + 50) / 100).floor().clamp(1, 255), images)
    planes = images.flatten(2) * 255
    if images.shape[1] == 1:
        planes = _quantized((planes - 128).view(images.shape), steps[:, 0]) + 128
        return (planes / 255).clamp(0, 1)
    planes = (like_device(_TO_YCC, images) @ planes).view(images.shape)
    luma = _quantized(planes[:, :1] - 128, steps[:, 0]) + 128
    odd = (0, width % 2, 0, height % 2)
    small = functional.avg_pool2d(functional.pad(planes[:, 1:], odd, mode="replicate"), 2)
    chroma = functional.interpolate(_quantized(small, steps[:, 1]), scale_factor=2.0, mode="bilinear")
    planes = torch.cat((luma, chroma[..., :height, :width]), 1)
    return (like_device(_TO_RGB, images) @ planes.flatten(2) / 255).clamp(0, 1).view(images.shape)


def _quantized(planes: Tensor, steps: Tensor) -> Tensor:
    """Round the cosine coefficients of planes `[count, channels, height, width]` to multiples of `[count, 64]`."""
    count, channels, height, width = planes.shape
    padded = functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    down, across = (side // 8 for side in padded.shape[-2:])
    blocks = padded.reshape(count, channels, down, 8, across, 8).transpose(3, 4).reshape(count, -1, 64)
    cosines, steps = like_device(_COSINES, planes), steps.unsqueeze(1)
    blocks = (blocks @ cosines.T / steps).round() * steps @ cosines
    whole = blocks.view(count, channels, down, across, 8, 8).transpose(3, 4).reshape(padded.shape)
    return whole[..., :height, :width]
