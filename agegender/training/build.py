"""Builds the library objects that a config names by `_target_`: the one place where that happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.optim import Optimizer

from agegender.errors import AgeGenderError, require
from agegender.targets import check_targets

# A config, or a checkpoint's hyperparameters, may come from somebody else: it builds objects of these libraries only.
ALLOWED = ("agegender.", "lightning.pytorch.", "torch.optim.", "torchmetrics.")


def build(config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Builds the object that `_target_` names from plain values.

    Containers arrive as lists and dicts (`_convert_="all"`): OmegaConf's own types would drag the whole config into an
    optimiser's state and so into checkpoints.

    Raises:
        AgeGenderError: `_target_` lies outside the libraries that a config may build from, or it refuses its arguments.
    """
    check_node(config)
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
    """Refuses a config whose `_target_`, at any depth, is no class of the libraries in `ALLOWED`."""
    check_targets(config, ALLOWED)


def check_node(config: Mapping[str, Any]) -> None:
    """Refuses a node that must not be built: see `check_target`, and a `${...}` that is left in a text.

    Hydra would read it once more, after the check, and what it stands for may be anything to build.
    """
    check_target(config)
    for text in _texts(config):
        require("${" not in text, f"{config.get('_target_')}: {text!r} can't be used: `${{` begins an interpolation")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
