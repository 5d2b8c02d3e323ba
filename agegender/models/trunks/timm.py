"""timm's backbones as trunks, with published or random weights."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from agegender.errors import AgeGenderError, missing_extra, require
from agegender.models.trunks.trunk import Published

# Options with which an untrusted checkpoint could read or download files when its network is built.
_REFUSED = ("pretrained", "checkpoint_path", "cache_dir", "in_chans", "num_classes", "scriptable", "exportable")


class TimmTrunk(nn.Module):
    """A backbone of timm (Wightman, "PyTorch Image Models") without its classifier; it keeps timm's initialization.

    timm is imported only here. Building a trunk reads and downloads nothing; `load_pretrained` does, when a training
    starts.

    Attributes:
        num_features: Number of features that `forward` returns per image.
    """

    keeps_own_init = True

    def __init__(self, in_channels: int, image_size: int, name: str = "resnet18", **options: Any):
        """Build the backbone; `load_pretrained` loads published weights.

        Args:
            in_channels: Color channels of the images.
            image_size: Side of the images, in pixels.
            name: A name of `timm.list_models()`, with or without the tag of its weights.
            options: Further arguments of `timm.create_model`, such as `drop_path_rate` or `img_size`.

        Raises:
            AgeGenderError: timm is missing, has no such backbone, or rejects the options or the image size.
        """
        super().__init__()
        self.name, self.in_channels, self.options = name, in_channels, options
        self.backbone = self._create()
        self.num_features = self._check_image_size(image_size)

    def _create(self, pretrained: bool = False) -> nn.Module:
        timm = _timm(self.name)
        for key in self.options:
            refused = key in _REFUSED or key.startswith("pretrained_")
            require(not refused, f"model.trunk.{key} is not allowed: weights are set with model.pretrained")
        try:
            created: nn.Module = timm.create_model(
                self.name, pretrained=pretrained, in_chans=self.in_channels, num_classes=0, **self.options
            )
        except (TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise AgeGenderError(f"model.name={self.name} can't be built with these settings: {reason}") from None
        return created

    def _check_image_size(self, image_size: int) -> int:
        """Return the number of features; raise an error if the backbone rejects the image size."""
        training = self.backbone.training
        try:
            with torch.inference_mode():
                features = self.backbone.eval()(torch.zeros(1, self.in_channels, image_size, image_size))
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:150]
            raise AgeGenderError(
                f"model.name={self.name} rejects images of data.image_size={image_size} ({reason}); most need 224, "
                f"and transformers other sizes by +model.trunk.img_size={image_size}"
            ) from None
        self.backbone.train(training)
        flat = isinstance(features, Tensor) and features.ndim == 2
        require(flat, f"model.name={self.name} doesn't output one vector per image: choose another backbone")
        return int(features.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[batch, channels, size, size]` to features `[batch, num_features]`."""
        features: Tensor = self.backbone(images)
        return features

    @classmethod
    def published(
        cls, pretrained: str | bool | None, in_channels: int, name: str = "resnet18", **options: Any
    ) -> Published:
        """Return the statistics of the pixels that the published weights were trained with; see `Trunk`.

        For gray images, the statistics are averaged over the colors.
        """
        known = _published(name, pretrained)
        mean, std = list(known.mean), list(known.std)
        if in_channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        return Published({"name": name, **options}, mean, std)

    def load_pretrained(self, pretrained: str | Literal[True]) -> str:
        """Replace the weights by published ones, which timm downloads once into Hugging Face's cache.

        For one channel, timm sums the first layer's weights over the three.

        Args:
            pretrained: The tag of the weights, such as `a1_in1k`; True for the backbone's default.

        Returns:
            The name and the license of the weights.

        Raises:
            AgeGenderError: There are no weights of that name, or they can't be downloaded.
        """
        name, known = _tagged(self.name, pretrained), _published(self.name, pretrained)
        require(known.has_weights, f"model.name={self.name} has no published weights: leave out model.pretrained")
        plain, self.name = self.name, name
        try:
            self.backbone.load_state_dict(self._create(pretrained=True).state_dict())
        except AgeGenderError:
            raise
        except Exception as error:  # Hugging Face's client raises various exceptions when offline
            reason = " ".join(str(error).split())[:200]
            raise AgeGenderError(
                f"model.pretrained={pretrained}: the weights of {name} can't be read ({reason}); go online once, or "
                "set HF_HOME to a cache that holds them"
            ) from None
        finally:
            self.name = plain
        return f"{name}, {known.license or 'license unknown'}"


def _tagged(name: str, pretrained: str | bool | None) -> str:
    return f"{name.partition('.')[0]}.{pretrained}" if isinstance(pretrained, str) else name


def _published(name: str, pretrained: str | bool | None) -> Any:
    """Return timm's `PretrainedCfg` of a backbone.

    Raises:
        AgeGenderError: There are no weights with that tag.
    """
    timm, tagged = _timm(name), _tagged(name, pretrained)
    try:
        return timm.models.get_pretrained_cfg(tagged)
    except RuntimeError:
        base = name.partition(".")[0]
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
        raise AgeGenderError(
            f"model.name={name}: timm has no weights {tagged}; it has {', '.join(tags) or 'none'}"
        ) from None


def _timm(name: str) -> Any:
    """Import timm, and check that a name is one of its backbones: `hf-hub:` and the like would be downloaded."""
    try:
        import timm
    except ImportError as error:
        raise missing_extra(f"model.name={name}", error, "timm") from None
    require(
        timm.is_model(name.partition(".")[0]) and ":" not in name,
        f"model.name={name} is none of timm's backbones: see timm.list_models()",
    )
    return timm
