"""Batched random augmentation of training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from agegender.data.augmentation import functional, jpeg
from agegender.errors import require


class Augment:
    """Random changes of geometry, color and quality, drawn per image and applied per batch.

    Geometry is a single affine warp, so an image is interpolated once; all color changes are one matrix per image.
    Degradations of a camera or a file follow in their natural order (blur, resolution, sharpening, noise, compression),
    then erasing; they are computed for the selected images only. Random numbers come from the caller's CPU generator,
    so CPU and GPU runs get the same changes, and the selection needs no synchronization with the device. A strength of
    0 draws no random number.
    """

    def __init__(
        self,
        flip: float = 0.0,
        rotate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shift: float = 0.0,
        squeeze: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        color: float = 0.0,
        gray: float = 0.0,
        blur: float = 0.0,
        blur_sigma: Sequence[float] = (0.004, 0.012),
        resolution: float = 0.0,
        resolution_scale: Sequence[float] = (0.25, 0.9),
        sharpen: float = 0.0,
        sharpen_amount: Sequence[float] = (0.3, 1.5),
        noise: float = 0.0,
        noise_sigma: Sequence[float] = (0.004, 0.05),
        compress: float = 0.0,
        compress_quality: Sequence[int] = (30, 95),
        erase: float = 0.0,
        erase_area: Sequence[float] = (0.02, 0.2),
    ):
        """Set the strengths; every default means no change. On grayscale images, `color` and `gray` do nothing.

        Args:
            flip: Probability of a left-right flip.
            rotate: Largest rotation either way, in degrees.
            scale: Smallest and largest magnification of the face.
            shift: Largest shift either way along each axis, as a fraction of the side.
            squeeze: Largest relative change of the aspect ratio: width over height is multiplied by a factor between
                1 / (1 + squeeze) and 1 + squeeze, the area stays. 0.34 covers a 4:3 image shown as a square.
            brightness: Largest amount added or subtracted, as a fraction of full white.
            contrast: Largest relative change of the contrast about mid-gray.
            color: Largest relative change of the saturation; each channel's own gain changes by up to half as much.
            gray: Probability of a conversion to grayscale.
            blur: Probability of a Gaussian blur.
            blur_sigma: Smallest and largest standard deviation of the blur, as a fraction of the side.
            resolution: Probability of downscaling and upscaling again.
            resolution_scale: Smallest and largest downscaling factor.
            sharpen: Probability of an unsharp mask.
            sharpen_amount: Smallest and largest multiple of the detail that is added.
            noise: Probability of Gaussian noise, with equal chances in the luminance alone or in each channel
                independently; both are the same on grayscale images.
            noise_sigma: Smallest and largest standard deviation of the noise, as a fraction of full white.
            compress: Probability of JPEG compression artifacts.
            compress_quality: Lowest and highest JPEG quality.
            erase: Probability that a rectangle is replaced by noise: Zhong et al., "Random Erasing Data
                Augmentation", AAAI 2020.
            erase_area: Smallest and largest area of the rectangle, as a fraction of the image's.

        Raises:
            AgeGenderError: A strength is out of range.
        """
        shares = {"flip": flip, "shift": shift, "brightness": brightness, "contrast": contrast, "color": color}
        shares |= {"gray": gray, "blur": blur, "compress": compress, "erase": erase}
        shares |= {"squeeze": squeeze, "resolution": resolution, "sharpen": sharpen, "noise": noise}
        for name, value in {**shares, "rotate": rotate}.items():
            most = 180 if name == "rotate" else 1
            require(0 <= value <= most, f"augment.{name}={value} must lie between 0 and {most}")
        self.flip, self.rotate, self.shift, self.brightness, self.contrast = flip, rotate, shift, brightness, contrast
        self.color, self.gray, self.blur, self.compress, self.erase = color, gray, blur, compress, erase
        self.squeeze, self.resolution, self.sharpen, self.noise = squeeze, resolution, sharpen, noise
        self.scale = _range("scale", scale, "factors above zero", math.inf)
        self.blur_sigma = _range("blur_sigma", blur_sigma, "fractions of the side, above 0 and up to 0.1", 0.1)
        of_side = "fractions of the side, above 0 and up to 1"
        self.resolution_scale = _range("resolution_scale", resolution_scale, of_side, 1)
        self.sharpen_amount = _range("sharpen_amount", sharpen_amount, "amounts, above 0 and up to 10", 10)
        self.noise_sigma = _range("noise_sigma", noise_sigma, "fractions of full white, above 0 and up to 1", 1)
        self.compress_quality = _range("compress_quality", compress_quality, "whole numbers from 1 to 100", 100)
        self.erase_area = _range("erase_area", erase_area, "fractions of the image, above 0 and up to 1", 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 or float in [0, 1], shape `[batch, channels, height, width]`.
            generator: A CPU generator; the same state gives the same changes.

        Returns:
            Float images in [0, 1], same shape and device.
        """
        theta = self._affine(len(images), generator)
        matrix = self._colors(len(images), images.shape[1], generator)
        varied = self._moved_and_recolored(images, theta, matrix)
        for share, change in (
            (self.blur, self._blurred),
            (self.resolution, self._resampled),
            (self.sharpen, self._sharpened),
            (self.noise, self._noisy),
            (self.compress, self._compressed),
            (self.erase, self._erased),
        ):
            drawn = self._chosen(share, len(images), generator)
            if len(drawn):
                places = functional.like_device(drawn, images)
                varied.index_copy_(0, places, change(varied.index_select(0, places), generator))
        return varied

    @staticmethod
    def _moved_and_recolored(images: Tensor, theta: Tensor | None, matrix: Tensor | None) -> Tensor:
        """Return a float copy of the images after the warp and the color transform."""
        scaled = images.dtype == torch.uint8
        varied = torch.empty(images.shape, dtype=torch.float32 if scaled else images.dtype, device=images.device)
        size = _PART if images.device.type == "cpu" else max(1, len(images))
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            pixels = images[part].float().div_(255) if scaled else images[part]
            if theta is not None:
                pixels = functional.affine_warp(pixels, theta[part])
            if matrix is not None:
                pixels = functional.color_affine(pixels, matrix[part, :, :-1], matrix[part, :, -1])
            varied[part] = pixels
        return varied

    def _affine(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Return `[count, 2, 3]` matrices from output to input coordinates, or None for the identity."""
        if not (self.flip or self.rotate or self.shift or self.squeeze) and self.scale == (1.0, 1.0):
            return None
        angle = math.radians(self.rotate) * _symmetric(generator, count)
        low, high = (math.log(factor) for factor in self.scale)
        zoom = torch.exp(_between(low, high, generator, count))
        mirror = torch.where(torch.rand(count, generator=generator) < self.flip, -1.0, 1.0)
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        shift_x, shift_y = (2 * self.shift * _symmetric(generator, count) for _ in range(2))
        rows = (torch.stack((cos * mirror, -sin, shift_x), 1), torch.stack((sin * mirror, cos, shift_y), 1))
        theta = torch.stack(rows, 1)
        if self.squeeze:
            # Along the axes of the output, also for a rotated face, as a display stretches an image.
            wider = torch.exp(math.log1p(self.squeeze) / 2 * _symmetric(generator, count)).view(-1, 1)
            theta[..., 0] /= wider
            theta[..., 1] *= wider
        return theta

    def _colors(self, count: int, channels: int, generator: torch.Generator) -> Tensor | None:
        """Return `[count, channels, channels + 1]`, a matrix and an offset each, or None for the identity."""
        change = torch.eye(channels, channels + 1).repeat(count, 1, 1)
        colored = channels == 3 and bool(self.color or self.gray)
        if self.brightness or self.contrast:
            gain = 1 + self.contrast * _symmetric(generator, count, 1, 1)
            offset = self.brightness * _symmetric(generator, count, 1)
            change = change * gain
            change[..., -1] = 0.5 - 0.5 * gain[..., 0] + offset
        elif not colored:
            return None
        if colored:
            tint = 1 + self.color / 2 * _symmetric(generator, count, 3, 1)
            saturation = 1 + self.color * _symmetric(generator, count, 1, 1)
            saturation[self._chosen(self.gray, count, generator)] = 0
            luma = torch.tensor(functional.LUMA)
            change = (luma + saturation * (torch.eye(3) - luma)) @ (tint * change)
        return change

    def _chosen(self, share: float, count: int, generator: torch.Generator) -> Tensor:
        """Return the places of the images that something happens to; with a share of 0, draws nothing."""
        chosen = torch.rand(count, generator=generator) < share if share else torch.zeros(count, dtype=torch.bool)
        return chosen.nonzero()[:, 0]

    def _blurred(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return functional.blur(images, images.shape[-1] * _between(*self.blur_sigma, generator, len(images)))

    def _resampled(self, images: Tensor, generator: torch.Generator) -> Tensor:
        sides = images.shape[-1] * _between(*self.resolution_scale, generator, len(images))
        return functional.resample(images, sides.round().long().clamp_min(1))

    def _sharpened(self, images: Tensor, generator: torch.Generator) -> Tensor:
        amount = _between(*self.sharpen_amount, generator, len(images))
        sigma = max(0.5, _SHARPENED * images.shape[-1])  # pixels: a narrower blur removes nothing
        return functional.sharpen(images, amount, torch.full((len(images),), sigma))

    def _noisy(self, images: Tensor, generator: torch.Generator) -> Tensor:
        sigma = _between(*self.noise_sigma, generator, len(images))
        noise = torch.empty(images.shape)
        luminance = torch.rand(len(images), generator=generator) < 0.5
        for chosen, channels in ((luminance, 1), (~luminance, images.shape[1])):
            shape = (int(chosen.sum()), channels, *images.shape[2:])
            noise[chosen] = torch.randn(shape, generator=generator).expand(-1, images.shape[1], -1, -1)
        return functional.add_noise(images, sigma, noise)

    def _compressed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        low, high = self.compress_quality
        return jpeg.jpeg_compress(images, torch.randint(int(low), int(high) + 1, (len(images),), generator=generator))

    def _erased(self, images: Tensor, generator: torch.Generator) -> Tensor:
        area = _between(*self.erase_area, generator, len(images))
        # Height over width, log-uniform around 1; limited so that a large rectangle fits.
        limit = torch.minimum(torch.tensor(_LONGEST).log(), -area.log())
        aspect = torch.exp(limit * _symmetric(generator, len(images)))
        sides = torch.stack((area * aspect, area / aspect), 1).sqrt()
        corners = (1 - sides) * torch.rand(len(images), 2, generator=generator)
        noise = torch.rand(images.shape[1:], generator=generator)  # shared by the batch, cropped per image
        return functional.erase(images, torch.cat((corners, sides), 1), noise)


_PART = 8  # images per step on a CPU: intermediate results stay in the core's cache, which halves the time
_SHARPENED = 0.008  # fraction of the side, a pixel of 128: sigma of the blur in `sharpen`
_LONGEST = 1 / 0.3  # largest aspect ratio of the erased rectangle: Zhong et al.


def _symmetric(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def _between(low: float, high: float, generator: torch.Generator, count: int) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _range(name: str, ends: Sequence[float], meaning: str, most: float) -> tuple[float, float]:
    """Return the two ends of a range above zero.

    Raises:
        AgeGenderError: The ends are not two, in the wrong order, or out of range.
    """
    fits = len(ends) == 2 and 0 < ends[0] <= ends[1] <= most and math.isfinite(ends[1])
    require(fits, f"augment.{name}={list(ends)} must be two {meaning}, the smaller one first")
    return ends[0], ends[1]
