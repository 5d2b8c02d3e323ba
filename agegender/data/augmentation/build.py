"""The augmentation that `augment` names by `_target_`: ours, torchvision's, or a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agegender.config.allowlist import instantiate, resolve
from agegender.data.augmentation.augment import Augment
from agegender.errors import require

# Called with images `[batch, channels, height, width]`, uint8 or float in [0, 1], and a CPU generator from which all
# random numbers are to come, so that a run can be repeated and resumed; returns float images in [0, 1] of that shape.
Augmentation = Callable[[Tensor, torch.Generator], Tensor]

OWN = f"{Augment.__module__}.{Augment.__qualname__}"


class TorchvisionAugment:
    """Transforms of `torchvision.transforms.v2`, one after the other, with random numbers drawn for each picture.

    Torchvision's transforms take one picture at a time and know no generator: each picture's random numbers are seeded
    from the generator instead. On a CPU that takes several times as long as `Augment`, which changes a batch at once.
    """

    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]]):
        """Keeps the transforms.

        Args:
            transforms: Each is called with float images in [0, 1], `[channels, height, width]`, and keeps their shape.
        """
        self.transforms = list(transforms)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Varies a batch; see `Augmentation`."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        seeds = torch.randint(2**62, (len(images),), generator=generator).tolist()
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            return torch.stack([self._varied(image, seed) for image, seed in zip(scaled, seeds, strict=True)])

    def _varied(self, image: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        for transform in self.transforms:
            image = transform(image)
        return image.clamp(0, 1)


def resolve_augmentation(node: Mapping[str, Any]) -> Callable[..., Augmentation]:
    """Return the class of an augmentation; `Augment` if the settings name none.

    Raises:
        AgeGenderError: See `agegender.config.allowlist.resolve`; or it is one of torchvision's, which take no
            generator.
    """
    found = resolve({"_target_": OWN, **node}, "augment")
    bare = str(node.get("_target_")).startswith("torchvision.transforms.")
    wrapper = f"{TorchvisionAugment.__module__}.{TorchvisionAugment.__qualname__}"
    require(
        not bare,
        f"augment._target_={node.get('_target_')} takes no generator: set augment._target_={wrapper} and "
        "list torchvision's transforms in augment.transforms; see docs/extending.md",
    )
    return found


def build_augmentation(node: Mapping[str, Any]) -> Augmentation:
    """Build an augmentation from settings of `conf/augment`.

    Raises:
        AgeGenderError: See `resolve_augmentation` and `agegender.config.allowlist.instantiate`.
    """
    resolve_augmentation(node)
    made: Augmentation = instantiate({"_target_": OWN, **node}, "augment")
    return made
