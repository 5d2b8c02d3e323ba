"""Settings of networks, with trunks and age codings named as in conf/model and conf/age."""

from __future__ import annotations

import inspect
from typing import Any

from agegender.models.trunks.conv_stack import ConvStack
from agegender.models.trunks.face import FaceTrunk
from agegender.models.trunks.resnet import ResNetTrunk
from agegender.models.trunks.torchvision import TorchvisionTrunk
from agegender.tasks.age_coding import AgeCoding
from agegender.tasks.age_distribution import BinnedAge, Coral, LabelDistribution
from agegender.tasks.age_regression import HuberAge, L1Age, MSEAge

AGE_CODINGS: dict[str, type[AgeCoding]] = {
    "mae": L1Age,
    "mse": MSEAge,
    "huber": HuberAge,
    "classes": BinnedAge,
    "dldl": LabelDistribution,
    "coral": Coral,
}
TRUNKS: dict[str, type[Any]] = {
    "conv_stack": ConvStack,
    "face": FaceTrunk,
    "residual": ResNetTrunk,
    "torchvision": TorchvisionTrunk,
}


def target(built: type[Any]) -> str:
    """Returns a class's dotted name."""
    return f"{built.__module__}.{built.__qualname__}"


def age_node(name: str, **options: Any) -> dict[str, Any]:
    """Returns the settings of an age coding."""
    return {"_target_": target(AGE_CODINGS[name]), **options}


def trunk_node(trunk: str = "conv_stack", /, **options: Any) -> dict[str, Any]:
    """Returns the settings of a trunk."""
    return {"_target_": target(TRUNKS[trunk]), **options}


def network_settings(age: dict[str, Any], trunk: str = "conv_stack", **options: Any) -> dict[str, Any]:
    """Returns the arguments of `MultiTaskNet`.

    Args:
        age: `name` of the age coding, and its arguments.
        trunk: Name of the trunk.
        options: Arguments of the network or of the trunk.
    """
    known = {*inspect.signature(TRUNKS[trunk]).parameters} - {"in_channels", "image_size"}
    trunks = {key: value for key, value in options.items() if key in known}
    others = {key: value for key, value in options.items() if key not in trunks}
    return {"age": age_node(**age), "trunk": trunk_node(trunk, **trunks), **others}
