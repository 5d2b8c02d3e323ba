"""Common image corruptions, for measuring robustness and calibrating the age intervals.

They follow Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019: common, not adversarial, each at a fixed, named strength. A corruption is a function of the face's row of the
index, so that it doesn't depend on the batch that the face is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from agegender.data.augmentation import functional, jpeg
from agegender.data.loading.dataset import step_seed

Corruption = Callable[[Tensor, Tensor], Tensor]

_SIDE = 128  # pixels a side, the reference size of all lengths


def corrupt(images: Tensor, name: str, rows: Tensor) -> Tensor:
    """Apply one corruption to a batch.

    Args:
        images: `[count, channels, side, side]`, uint8, or float in [0, 1]; not modified.
        name: One of `CORRUPTIONS`. Lengths scale with the side. Noise is added at the size of `images`, which is the
            network's input size.
        rows: int64 `[count]`, the faces' rows of the index.

    Returns:
        Float images in [0, 1], of the same shape and on the same device.
    """
    pictures = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    with torch.autocast(images.device.type, enabled=False):  # noise of three gray levels is below bfloat16's resolution
        return CORRUPTIONS[name](pictures, rows.cpu())


def corrupt_any(images: Tensor, rows: Tensor) -> Tensor:
    """Apply one of `CORRUPTIONS` to each face, chosen by its row of the index; see `corrupt`."""
    changed = torch.empty(images.shape, device=images.device)
    rows = rows.cpu()
    # 7 is coprime to the number of corruptions: neighboring rows get different corruptions.
    drawn = (rows * 7) % len(CORRUPTIONS)
    for number, name in enumerate(CORRUPTIONS):
        chosen = (drawn == number).nonzero()[:, 0]
        if len(chosen):
            places = chosen.to(images.device)
            changed[places] = corrupt(images[places], name, rows[chosen])
    return changed


def _all(images: Tensor, value: float) -> Tensor:
    return torch.full((len(images),), value)


def _noise(images: Tensor, rows: Tensor, levels: float, colored: bool) -> Tensor:
    channels, height, width = images.shape[1:]
    shape = (channels if colored else 1, height, width)
    drawn = [torch.randn(shape, generator=_generator(row, "noise")) for row in rows.tolist()]
    return functional.add_noise(images, _all(images, levels / 255), torch.stack(drawn))


def _generator(row: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(step_seed(0, 0, row, purpose))


def _blur(images: Tensor, rows: Tensor) -> Tensor:
    return functional.blur(images, _all(images, 1.5 * images.shape[-1] / _SIDE))


def _sharpen(images: Tensor, rows: Tensor) -> Tensor:
    return functional.sharpen(images, _all(images, 1.5), _all(images, images.shape[-1] / _SIDE))


def _resolution(images: Tensor, rows: Tensor) -> Tensor:
    side = max(1, round(40 * images.shape[-1] / _SIDE))
    return functional.resample(images, torch.full((len(images),), side))


def _jpeg(images: Tensor, rows: Tensor, quality: int) -> Tensor:
    return jpeg.jpeg_compress(images, torch.full((len(images),), quality))


def _gray(images: Tensor, rows: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images.clone()
    luma = images.new_tensor(functional.LUMA).view(1, 3, 1, 1)
    return (images * luma).sum(1, keepdim=True).expand_as(images).clone()


def _light(images: Tensor, rows: Tensor, gain: float) -> Tensor:
    return (images * gain).clamp(0, 1)


def _affine(images: Tensor, theta: Tensor) -> Tensor:
    return functional.affine_warp(images, theta).clamp(0, 1)


def _sign(rows: Tensor) -> Tensor:
    return 1.0 - 2.0 * (rows % 2).float()


def _shift(images: Tensor, rows: Tensor) -> Tensor:
    theta = torch.eye(2, 3).repeat(len(rows), 1, 1)
    theta[:, 0, 2] = _sign(rows) * 2 * 6 / _SIDE
    theta[:, 1, 2] = _sign(rows // 2) * 2 * 6 / _SIDE
    return _affine(images, theta)


def _turn(images: Tensor, rows: Tensor) -> Tensor:
    angle = math.radians(10) * _sign(rows)
    theta = torch.zeros(len(rows), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    return _affine(images, theta)


def _squeeze(images: Tensor, rows: Tensor) -> Tensor:
    factor = (4 / 3) ** (_sign(rows) / 2)  # of one axis; the other gets the inverse, which keeps the area
    theta = torch.zeros(len(rows), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = factor, 1 / factor
    return _affine(images, theta)


# Noise is Gaussian, in the luminance or in each channel separately; its standard deviation is in gray levels of 255.
# Lengths are for 128 pixels a side.
CORRUPTIONS: dict[str, Corruption] = {
    **{f"noise_{levels}": partial(_noise, levels=levels, colored=False) for levels in (3, 5, 10)},
    **{f"noise_rgb_{levels}": partial(_noise, levels=levels, colored=True) for levels in (3, 5, 10)},
    "blur": _blur,  # Gaussian, 1.5 pixels
    "sharpen": _sharpen,  # unsharp mask: adds 1.5 times the detail removed by a blur of 1 pixel
    "resolution_40": _resolution,  # down to 40 pixels a side and up again
    "jpeg_30": partial(_jpeg, quality=30),
    "jpeg_10": partial(_jpeg, quality=10),
    "gray": _gray,
    "dark": partial(_light, gain=0.6),
    "bright": partial(_light, gain=1.4),
    "shift": _shift,  # 6 pixels along both axes, in four directions
    "turn": _turn,  # 10 degrees, either way
    "squeeze": _squeeze,  # an aspect ratio of 4:3, in width or in height
}
