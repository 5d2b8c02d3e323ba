"""Mixup and CutMix: training images that combine two faces of a batch, and the weights of their labels.

torchvision.transforms.v2.MixUp and CutMix mix one-hot vectors of one class label. The tasks here have several labels,
numbers among them, and labels may be missing, so the losses are mixed instead, which for a cross-entropy is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agegender.data.augmentation.functional import like_device
from agegender.errors import require

KEYS = ("mixup", "cutmix")  # settings in `augment` that are not arguments of the augmentation


class Partners(NamedTuple):
    """The second faces of a mixed batch.

    Attributes:
        order: int64 `[batch]`, position in the batch of each face's partner, on the images' device.
        own: Weight of a face's own label; that of its partner's is 1 minus this.
    """

    order: Tensor
    own: float

    def of(self, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the partners' labels, each `[batch]`, by name."""
        return {name: values[self.order] for name, values in labels.items()}

    def dominant(self, labels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the labels with the larger weight, by name."""
        return labels if self.own >= 0.5 else self.of(labels)

    def mixed(self, own: Sequence[Tensor], partners: Sequence[Tensor]) -> list[Tensor]:
        """Return the weighted means of losses against the faces' own targets and their partners'."""
        return [self.own * first + (1 - self.own) * second for first, second in zip(own, partners, strict=True)]


class Mixing:
    """Mix each image of a batch with that of another face of the batch.

    Mixup: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. CutMix: Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019. As in the papers, the
    weight and the rectangle are drawn once per batch.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0):
        """Set the methods; if both are on, each batch uses one of them with equal chances.

        Args:
            mixup: Parameter of the Beta distribution of the images' weights: 0 for off, 0.2 for mostly light mixtures,
                1 for uniform weights.
            cutmix: The same for the fraction of the image that is kept; the rest is a rectangle of the partner's image.

        Raises:
            AgeGenderError: A parameter is negative or not finite.
        """
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            require(0 <= alpha < math.inf, f"augment.{name}={alpha} must be at least 0 (0: off)")
        self.mixup, self.cutmix = mixup, cutmix

    def __call__(self, images: Tensor, seed: int) -> tuple[Tensor, Partners]:
        """Return the mixed images, float in [0, 1], and the partners; at least one method must be on.

        Args:
            images: uint8 or float in [0, 1], `[batch, channels, height, width]`.
            seed: Seed of the random numbers; the same seed gives the same mixture on any device.
        """
        random = np.random.default_rng(seed)
        order = like_device(torch.from_numpy(random.permutation(len(images))), images)
        cuts = bool(self.cutmix) and (not self.mixup or random.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        own = random.beta(alpha, alpha)
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        if not cuts:
            return torch.lerp(pixels[order], pixels, own), Partners(order, own)
        height, width = pixels.shape[2:]
        center = random.random(2)
        top, bottom = _span(height, center[0], own)
        left, right = _span(width, center[1], own)
        mixed = pixels.clone()
        mixed[:, :, top:bottom, left:right] = pixels[order, :, top:bottom, left:right]
        return mixed, Partners(order, 1 - (bottom - top) * (right - left) / (height * width))


def _span(side: int, center: float, own: float) -> tuple[int, int]:
    """Return the first pixel and the end of a rectangle along one side, cut off at the image's edges."""
    half = side * math.sqrt(1 - own) / 2
    return max(0, round(center * side - half)), min(side, round(center * side + half))


def split_settings(augment: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the augmentation, and those of `Mixing`, from the config's `augment`."""
    node = dict(augment or {})
    mixing = {key: node.pop(key) for key in KEYS if key in node}
    return node, mixing


def build_mixing(augment: Mapping[str, Any] | None) -> Mixing | None:
    """Return the mixing that the config's `augment` sets; None if both methods are off.

    Raises:
        AgeGenderError: See `Mixing`.
    """
    mixing = Mixing(**split_settings(augment)[1])
    return mixing if mixing.mixup or mixing.cutmix else None
