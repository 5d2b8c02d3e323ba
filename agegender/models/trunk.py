"""What the network needs of a trunk, and what a trunk may offer beyond that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from agegender.errors import require
from agegender.targets import accepted, arguments_of, build, resolve


class Trunk(nn.Module):
    """Any module whose `forward` maps images `[batch, channels, size, size]` to features `[batch, num_features]`.

    A trunk need not derive from this class. `in_channels` and `image_size` are handed to its constructor if that has
    such arguments. A trunk may also have

    - `keeps_own_init = True`: `model.weight_init` leaves its weights alone;
    - `upper`: the layers that `model.trainable=upper` trains;
    - `load_pretrained(pretrained: str) -> str`, which `model.pretrained` calls when a training starts (never when a
      checkpoint is loaded); it returns where the weights come from and what their publishers allow;
    - a class method `published(pretrained, in_channels, **options) -> Published`: what the published weights say about
      the settings that are null.

    Attributes:
        num_features: Number of features per picture.
    """

    num_features: int


class Published(NamedTuple):
    """What published weights say about a network.

    Attributes:
        options: The trunk's settings, completed.
        mean: What the weights expect to be subtracted from pixels in [0, 1], per channel or one for all.
        std: What divides them then; likewise.
    """

    options: dict[str, Any]
    mean: list[float]
    std: list[float]


def build_trunk(node: Mapping[str, Any], in_channels: int, image_size: int) -> Trunk:
    """Builds a trunk for pictures of a size and number of colors.

    Args:
        node: The class as `_target_`, and its arguments.
        in_channels: 1 or 3.
        image_size: Side of the pictures, in pixels.

    Raises:
        AgeGenderError: See `agegender.targets.build`; or `num_features` is no number of features.
    """
    given = accepted(resolve(node, "model.trunk"), in_channels=in_channels, image_size=image_size)
    trunk: Trunk = build(node, "model.trunk", **given)
    counts = isinstance(trunk.num_features, int) and trunk.num_features > 0
    require(counts, f"model.trunk: {type(trunk).__name__}.num_features={trunk.num_features!r} must be a positive int")
    return trunk


def complete(model: Mapping[str, Any], in_channels: int) -> dict[str, Any]:
    """Returns the settings of `model` with those that are null taken from what the published weights say.

    Args:
        model: Settings of `conf/model`: arguments of `AgeGenderNet`, and `pretrained`.
        in_channels: 1 or 3.
    """
    trunk = resolve(model["trunk"], "model.trunk")
    if not hasattr(trunk, "published"):
        return dict(model)
    known: Published = trunk.published(model.get("pretrained"), in_channels, **arguments_of(model["trunk"]))
    statistics = {"mean": known.mean, "std": known.std}
    missing = {name: values for name, values in statistics.items() if model.get(name) is None}
    return {**model, **missing, "trunk": {"_target_": model["trunk"]["_target_"], **known.options}}
