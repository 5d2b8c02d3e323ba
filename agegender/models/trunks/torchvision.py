"""torchvision's classifiers as trunks, with published ImageNet weights or random ones."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any, Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from agegender.errors import AgeGenderError, did_you_mean, require
from agegender.models.trunks.trunk import Published


class TorchvisionTrunk(nn.Module):
    """A torchvision classifier without its last dense layer. Random weights keep torchvision's own initialization.

    torchvision is imported only here, so that predicting with another trunk doesn't need it.

    Attributes:
        num_features: Number of features that `forward` returns per image.
    """

    keeps_own_init = True

    def __init__(self, in_channels: int, image_size: int, name: str = "mobilenet_v2"):
        """Build the classifier; `load_pretrained` loads published weights.

        Args:
            in_channels: Color channels of the images; gray ones are repeated to three channels.
            image_size: Side of the images, in pixels.
            name: A name of `torchvision.models.list_models(torchvision.models)`.

        Raises:
            AgeGenderError: There is no such classifier, or it rejects the image size.
        """
        from torchvision import models

        super().__init__()
        _require_known(name)
        refused = f"model.name={name} doesn't end in one dense layer, which the heads would replace"
        require(name not in _TWO_ANSWERS, refused)
        self.name = name
        self.classifier: nn.Module = models.get_model(name, weights=None)
        dense = [path for path, layer in self.classifier.named_modules() if isinstance(layer, nn.Linear)]
        removed = self.classifier.get_submodule(dense[-1]) if dense else None
        if not isinstance(removed, nn.Linear) or removed.out_features != _CLASSES:
            raise AgeGenderError(refused)
        self.classifier.set_submodule(dense[-1], nn.Identity())
        self.num_features = removed.in_features
        self._check_image_size(image_size)

    def _check_image_size(self, image_size: int) -> None:
        """Raise an error if the classifier rejects the image size."""
        training = self.classifier.training
        try:
            with torch.inference_mode():
                self.classifier.eval()(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:150]
            raise AgeGenderError(
                f"model.name={self.name} rejects images of data.image_size={image_size} ({reason}); most need 224"
            ) from None
        self.classifier.train(training)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[batch, channels, size, size]` to features `[batch, features]`."""
        features: Tensor = self.classifier(images.expand(-1, 3, -1, -1))
        return features

    @classmethod
    def published(
        cls, pretrained: str | bool | None, in_channels: int, name: str = "mobilenet_v2", **options: Any
    ) -> Published:
        """Return the statistics of the pixels that the published weights were trained with; see `Trunk`.

        For gray images, the statistics are averaged over the colors.
        """
        from torchvision import models

        _require_known(name)
        preset: Any = models.get_model_weights(name).DEFAULT.transforms()
        mean, std = list(preset.mean), list(preset.std)
        if in_channels == 1:
            mean, std = [sum(mean) / 3], [sum(std) / 3]
        return Published({"name": name, **options}, mean, std)

    def load_pretrained(self, pretrained: str | Literal[True]) -> str:
        """Load published weights, which torchvision downloads once into `$TORCH_HOME`.

        Args:
            pretrained: Name in torchvision's weights enum of this classifier; True for `IMAGENET1K_V1`.

        Returns:
            The name of the weights.

        Raises:
            AgeGenderError: There are no weights of that name, they can't be downloaded, or the file is damaged.
        """
        entry = "IMAGENET1K_V1" if pretrained is True else pretrained
        weights = _entry(self.name, entry)
        try:
            # the hash of a file that is already there is not checked: `weights_only` is required
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except UnpicklingError as error:
            reason = str(error).split("\n")[0]
            raise AgeGenderError(
                f"model.pretrained={entry}: the file in $TORCH_HOME/hub/checkpoints can't be loaded safely as weights "
                f"({reason}); delete it to download it again"
            ) from None
        except (URLError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise AgeGenderError(
                f"model.pretrained={entry}: {weights.url} can't be read ({reason}); go online, or put the file into "
                "$TORCH_HOME/hub/checkpoints"
            ) from None
        found = self.classifier.load_state_dict(state, strict=False)  # the removed layer's weights are unexpected
        surplus = [key for key in found.unexpected_keys if state[key].shape[:1] != (_CLASSES,)]
        require(not found.missing_keys and not surplus, f"model.name={self.name}: the weights of {entry} don't fit it")
        return entry


_CLASSES = 1000  # of ImageNet
_TWO_ANSWERS = ("googlenet", "inception_v3")  # in training, these also return an auxiliary classifier's outputs


def _require_known(name: str) -> None:
    from torchvision import models

    known = models.list_models(models)
    require(name in known, f"model.name={name} is none of torchvision's classifiers; {did_you_mean(name, known)}")


def _entry(name: str, entry: str) -> Any:
    from torchvision import models

    published: Any = models.get_model_weights(name)
    require(
        entry in published.__members__,
        f"model.pretrained={entry} is none of the weights of model.name={name}: {', '.join(published.__members__)}",
    )
    return published[entry]
