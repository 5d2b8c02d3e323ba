"""Which weights are trained at which rate, and which decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

_SHARDED = "_fsdp_wrapped_module."  # what FSDP adds to the names of what it shares out


def count_dimensions(network: nn.Module) -> dict[str, int]:
    """Returns the number of dimensions of each weight, by its name."""
    return {name: weight.ndim for name, weight in network.named_parameters()}


def parameter_groups(
    network: nn.Module,
    others: Iterable[nn.Parameter],
    optimizer: Mapping[str, Any],
    trunk_factor: float = 1.0,
    dimensions: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Sorts weights into an optimiser's parameter groups; where there are several, the rates' curves bear their names.

    Weight decay is for what multiplies: biases and the gains of norms keep their values free of it, as is usual since
    Goyal et al., "Accurate, Large Minibatch SGD", 2017.

    Args:
        network: Has a `trunk`; what is not of it belongs to the heads.
        others: Further weights, such as those of the loss; they never decay.
        optimizer: Its settings; `lr` and `weight_decay` count here.
        trunk_factor: The trunk's learning rate, as a share of `lr`, from 0: small for one that was trained before.
        dimensions: How many each weight had when the network was made (`count_dimensions`), where some are in parts by
            now: of a matrix that it shares out, FSDP leaves a vector in each process.
    """
    decays = bool(optimizer.get("weight_decay"))
    trunk = {id(weight) for weight in network.trunk.parameters()} if trunk_factor != 1 else set()  # type: ignore[union-attr]
    groups: dict[str, list[nn.Parameter]] = {}
    known = count_dimensions(network) if dimensions is None else dimensions
    for name, weight in network.named_parameters():
        if not weight.requires_grad:  # a frozen trunk's
            continue
        part = ("trunk" if id(weight) in trunk else "heads") if trunk else "weights"
        spared = decays and known[name.replace(_SHARDED, "")] < 2
        groups.setdefault(f"{part}_no_decay" if spared else part, []).append(weight)
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
