"""Builds the library objects that a config names by `_target_`: the one place where that happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.optim import Optimizer

from agegender.errors import AgeGenderError

# A config, or a checkpoint's hyperparameters, may come from somebody else: it builds objects of these libraries only.
ALLOWED = ("agegender.", "lightning.pytorch.", "torch.optim.", "torchmetrics.")


def build(config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Builds the object that `_target_` names from plain values.

    Containers arrive as lists and dicts (`_convert_="all"`): OmegaConf's own types would drag the whole config into an
    optimiser's state and so into checkpoints.

    Raises:
        AgeGenderError: `_target_` lies outside the libraries that a config may build from, or refuses its arguments.
    """
    check_target(config)
    try:
        return instantiate(dict(config), *args, _convert_="all", **kwargs)
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise AgeGenderError(f"{config['_target_']} can't be built with these settings: {reason}") from error


def build_optimizer(config: Mapping[str, Any], groups: list[dict[str, Any]]) -> Optimizer:
    """Builds an optimiser for parameter groups, in two steps: Hydra would copy the weights that it is given.

    Raises:
        AgeGenderError: See `build`.
    """
    make = build({**config, "_partial_": True})
    try:
        optimizer: Optimizer = make(groups)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AgeGenderError(f"{config['_target_']} can't be built with these settings: {reason}") from error
    return optimizer


def check_target(config: Mapping[str, Any]) -> None:
    """Refuses a config whose `_target_`, at any depth, lies outside `ALLOWED`."""
    target = config.get("_target_")
    if target is not None and not str(target).startswith(ALLOWED):
        raise AgeGenderError(
            f"_target_: {target} is refused; a config builds from {', '.join(name[:-1] for name in ALLOWED)} only"
        )
    for value in config.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                check_target(item)
