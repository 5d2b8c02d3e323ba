"""The interface of trunks, required and optional, and how they are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from agegender.config.allowlist import accepted_kwargs, instantiate, kwargs_of, resolve
from agegender.errors import require


class Trunk(nn.Module):
    """A module whose `forward` maps images `[batch, channels, size, size]` to features `[batch, num_features]`.

    A trunk need not derive from this class. `in_channels` and `image_size` are passed to its constructor if it accepts
    them. A trunk may also have

    - `keeps_own_init = True`: `model.weight_init` doesn't apply to it;
    - `upper`: the layers that `model.trainable=upper` trains;
    - `load_pretrained(pretrained: str) -> str`, called with `model.pretrained` when a training starts (never when a
      checkpoint is loaded); it returns the origin and the license of the weights;
    - a class method `published(pretrained, in_channels, **options) -> Published`: values of published weights for
      settings that are null.

    Attributes:
        num_features: Number of features per image.
    """

    num_features: int


class Published(NamedTuple):
    """Settings that published weights imply.

    Attributes:
        options: The trunk's settings, completed.
        mean: Mean to be subtracted from pixels in [0, 1], one per channel or one for all.
        std: Standard deviation that divides them afterwards; likewise.
    """

    options: dict[str, Any]
    mean: list[float]
    std: list[float]


def build_trunk(node: Mapping[str, Any], in_channels: int, image_size: int) -> Trunk:
    """Build a trunk for an image size and a number of channels.

    Args:
        node: The class as `_target_`, and its arguments.
        in_channels: 1 or 3.
        image_size: Side of the images, in pixels.

    Raises:
        AgeGenderError: See `agegender.config.allowlist.instantiate`; or `num_features` is not a positive integer.
    """
    given = accepted_kwargs(resolve(node, "model.trunk"), in_channels=in_channels, image_size=image_size)
    trunk: Trunk = instantiate(node, "model.trunk", **given)
    counts = isinstance(trunk.num_features, int) and trunk.num_features > 0
    require(counts, f"model.trunk: {type(trunk).__name__}.num_features={trunk.num_features!r} must be a positive int")
    return trunk


def complete(model: Mapping[str, Any], in_channels: int) -> dict[str, Any]:
    """Return the settings of `model` with null ones filled in from the published weights.

    Args:
        model: Settings as in `conf/model`: arguments of `MultiTaskNet`, and `pretrained`.
        in_channels: 1 or 3.
    """
    trunk = resolve(model["trunk"], "model.trunk")
    if not hasattr(trunk, "published"):
        return dict(model)
    known: Published = trunk.published(model.get("pretrained"), in_channels, **kwargs_of(model["trunk"]))
    statistics = {"mean": known.mean, "std": known.std}
    missing = {name: values for name, values in statistics.items() if model.get(name) is None}
    return {**model, **missing, "trunk": {"_target_": model["trunk"]["_target_"], **known.options}}
