"""How training pictures are varied: random changes to a whole batch at once. Nothing here touches val or test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from agegender.errors import AgeGenderError


class Augment:
    """Random flip, rotation, scale, shift, brightness and contrast, drawn per picture and applied per batch.

    One affine warp does all the geometry, so a picture is interpolated once. Random numbers come from the generator
    that the caller passes, on the CPU, so CPU and GPU runs see the same changes.
    """

    def __init__(
        self,
        flip: float = 0.0,
        rotate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shift: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
    ):
        """Sets the strengths; every default means no change.

        Args:
            flip: Probability of a left-right flip.
            rotate: Largest rotation either way, in degrees.
            scale: Smallest and largest factor by which the face is enlarged.
            shift: Largest shift either way along each axis, as a share of the side.
            brightness: Largest amount added or taken, as a share of full white.
            contrast: Largest relative change of the contrast about mid-grey.

        Raises:
            AgeGenderError: A strength that means nothing.
        """
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise AgeGenderError(f"augment.scale={list(scale)} must be two factors above zero, the smaller one first")
        strengths = {"flip": flip, "rotate": rotate, "shift": shift, "brightness": brightness, "contrast": contrast}
        for name, value in strengths.items():
            if not 0 <= value <= (180 if name == "rotate" else 1):
                raise AgeGenderError(f"augment.{name}={value} must lie between 0 and {180 if name == 'rotate' else 1}")
        self.flip, self.rotate, self.shift = flip, rotate, shift
        self.scale = (scale[0], scale[1])
        self.brightness, self.contrast = brightness, contrast

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Varies a batch.

        Args:
            images: uint8 or float in [0, 1], shape `[batch, channels, height, width]`.
            generator: A CPU generator; the same state gives the same changes.

        Returns:
            Float images in [0, 1], same shape and device.
        """
        images = images.float().div_(255) if images.dtype == torch.uint8 else images
        theta = self._affine(len(images), generator)
        if theta is not None:
            grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if self.brightness or self.contrast:
            gain = 1 + self.contrast * self._symmetric(len(images), generator)
            offset = self.brightness * self._symmetric(len(images), generator)
            gain, offset = (value.to(images.device).view(-1, 1, 1, 1) for value in (gain, offset))
            images = ((images - 0.5) * gain + 0.5 + offset).clamp(0, 1)
        return images

    def _affine(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Returns `[count, 2, 3]` matrices from output to input coordinates, or None where nothing would move."""
        if not (self.flip or self.rotate or self.shift) and self.scale == (1.0, 1.0):
            return None
        angle = math.radians(self.rotate) * self._symmetric(count, generator)
        low, high = (math.log(factor) for factor in self.scale)
        zoom = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
        mirror = torch.where(torch.rand(count, generator=generator) < self.flip, -1.0, 1.0)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        shift_x, shift_y = (2 * self.shift * self._symmetric(count, generator) for _ in range(2))
        rows = (torch.stack((cos * mirror, -sin, shift_x), 1), torch.stack((sin * mirror, cos, shift_y), 1))
        return torch.stack(rows, 1)

    @staticmethod
    def _symmetric(count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator) * 2 - 1
