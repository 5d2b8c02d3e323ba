"""Dense layers and weight initialisation, shared by the trunks and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

WeightInit = Literal["pytorch", "xavier_uniform", "kaiming_uniform", "kaiming_normal"]


def dense_layers(inputs: int, units: Sequence[int], dropout: float) -> tuple[nn.Sequential, int]:
    """Builds Linear, ReLU and dropout per width; returns them with the number of their outputs."""
    layers: list[nn.Module] = []
    for width in units:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers), inputs


def initialise(network: nn.Module, scheme: WeightInit) -> None:
    """Initialises every convolution and dense layer, with zero biases.

    Args:
        network: Changed in place.
        scheme: `xavier_uniform` (Glorot and Bengio 2010; Keras's default, glorot_uniform), `kaiming_uniform` or
            `kaiming_normal` (He et al. 2015; Keras's he_uniform and he_normal), or `pytorch` to leave them as they are.
    """
    if scheme == "pytorch":
        return
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if scheme == "xavier_uniform":
            nn.init.xavier_uniform_(layer.weight)
        elif scheme == "kaiming_uniform":
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
