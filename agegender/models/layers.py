"""Dense layers, feature scaling and weight initialization, shared by the trunks and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from agegender.errors import require

WeightInit = Literal["pytorch", "xavier_uniform", "kaiming_uniform", "kaiming_normal"]


def mlp(inputs: int, units: Sequence[int], dropout: float) -> tuple[nn.Sequential, int]:
    """Return Linear, ReLU and dropout layers for each width, and the number of their outputs."""
    layers: list[nn.Module] = []
    for width in units:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers), inputs


def init_weights(network: nn.Module, scheme: WeightInit) -> None:
    """Initialize every convolution and dense layer, with zero biases.

    Args:
        network: Modified in place.
        scheme: `xavier_uniform` (Glorot and Bengio 2010; Keras's default, glorot_uniform), `kaiming_uniform` or
            `kaiming_normal` (He et al. 2015; Keras's he_uniform and he_normal), or `pytorch` for PyTorch's defaults.
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


class FeatureScaler(nn.Module):
    """Standardize features by statistics of the training faces, and clip outliers.

    The statistics are buffers, saved in checkpoints. Before `fit`, features are only clipped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, clip: float):
        """Set the clipping bound.

        Args:
            features: Number of features.
            clip: Maximum absolute value, in standard deviations.

        Raises:
            AgeGenderError: `clip` is not above zero.
        """
        super().__init__()
        require(clip > 0, f"model.feature_clip={clip} must be above zero, or null")
        self.clip = clip
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def fit(self, features: Tensor) -> None:
        """Compute the statistics of features `[faces, features]`; constant features get a standard deviation of 1."""
        std, mean = torch.std_mean(features.float(), 0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[batch, features]` to standardized ones, float32."""
        scaled: Tensor = ((features.float() - self.mean) / self.std).clamp(-self.clip, self.clip)
        return scaled
