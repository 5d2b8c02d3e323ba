"""Parameter groups: learning rates and weight decay of the trunk, the heads and the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

_SHARDED = "_fsdp_wrapped_module."  # FSDP's addition to the names of sharded parameters


def count_dimensions(network: nn.Module) -> dict[str, int]:
    """Return the number of dimensions of each parameter, by name."""
    return {name: weight.ndim for name, weight in network.named_parameters()}


def parameter_groups(
    network: nn.Module,
    others: Iterable[nn.Parameter],
    optimizer: Mapping[str, Any],
    trunk_factor: float = 1.0,
    dimensions: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups; several groups have names, which label their learning-rate curves.

    Biases and the gains of norm layers have no weight decay, as is usual since Goyal et al., "Accurate, Large Minibatch
    SGD", 2017.

    Args:
        network: A module with a `trunk`; all other parameters belong to the heads.
        others: Further parameters, such as those of the loss, without weight decay.
        optimizer: Settings of the optimizer, of which `lr` and `weight_decay` are used.
        trunk_factor: Learning rate of the trunk as a fraction of `lr`, at least 0: small for a pretrained trunk.
        dimensions: Result of `count_dimensions` before FSDP shards the network, which flattens matrices.
    """
    decays = bool(optimizer.get("weight_decay"))
    trunk = {id(weight) for weight in network.trunk.parameters()} if trunk_factor != 1 else set()  # type: ignore[union-attr]
    groups: dict[str, list[nn.Parameter]] = {}
    ndims = count_dimensions(network) if dimensions is None else dimensions
    for name, weight in network.named_parameters():
        if not weight.requires_grad:  # frozen trunk
            continue
        part = ("trunk" if id(weight) in trunk else "heads") if trunk else "weights"
        no_decay = decays and ndims[name.replace(_SHARDED, "")] < 2
        groups.setdefault(f"{part}_no_decay" if no_decay else part, []).append(weight)
    extra = list(others)
    if extra:
        groups["loss_no_decay"] = extra
    made = []
    for name, weights in groups.items():
        group: dict[str, Any] = {"params": weights} | ({"name": name} if len(groups) > 1 else {})
        if name.startswith("trunk"):
            group["lr"] = optimizer["lr"] * trunk_factor
        if name.endswith("_no_decay") and decays:
            group["weight_decay"] = 0.0
        made.append(group)
    return made
