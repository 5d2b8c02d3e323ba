"""The network: pixels in; a raw age and a gender logit out. A pure nn.Module, built from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agegender.errors import require
from agegender.models.age import AGE_CODINGS, AgeCoding
from agegender.models.conv_stack import ConvStack
from agegender.models.layers import WeightInit, dense_layers, initialise

TRUNKS: dict[str, type[ConvStack]] = {"conv_stack": ConvStack}


class Outputs(NamedTuple):
    """What the network answers, always float32.

    Attributes:
        age: Raw age head `[batch, outputs]`; `AgeGenderNet.years` decodes it.
        gender: Logit of being female `[batch]`.
    """

    age: Tensor
    gender: Tensor


class AgeGenderNet(nn.Module):
    """A shared trunk with an age head and a gender head; the pictures' normalisation is part of it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        age: Mapping[str, Any],
        trunk: str = "conv_stack",
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shared_units: Sequence[int] = (),
        head_units: Sequence[int] = (256,),
        dropout: float = 0.4,
        weight_init: WeightInit = "xavier_uniform",
        **trunk_options: Any,
    ):
        """Builds the network from plain values, so that a checkpoint can carry all it takes to build it again.

        Args:
            image_size: Side of the pictures, in pixels.
            in_channels: Colour channels of the pictures: 1 (grey) or 3 (RGB).
            age: `name` of the age coding, and its arguments.
            trunk: Name of the trunk, see `TRUNKS`.
            mean: Subtracted from pixels in [0, 1]; one value, or one per colour channel.
            std: Divides them then; likewise.
            shared_units: Widths of dense layers between the trunk and both heads.
            head_units: Widths of each head's own dense layers.
            dropout: Probability of dropping a unit after each dense layer.
            weight_init: How convolutions and dense layers start.
            trunk_options: Further arguments of the trunk.

        Raises:
            AgeGenderError: Values that don't fit each other.
        """
        super().__init__()
        require(0 <= dropout < 1, f"model.dropout={dropout} must be at least 0 and below 1")
        require(min(std, default=0) > 0, f"model.std={list(std)} must be above zero")
        for name, units in (("shared_units", shared_units), ("head_units", head_units)):
            require(min(units, default=1) > 0, f"model.{name}={list(units)} must be positive")
        for name, values in (("mean", mean), ("std", std)):
            fits = len(values) in (1, in_channels)
            require(fits, f"model.{name}={list(values)} needs 1 value or {in_channels}, one per colour channel")
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1))
        self.image_size, self.in_channels = image_size, in_channels
        coding = dict(age)
        self.coding: AgeCoding = AGE_CODINGS[coding.pop("name")](**coding)
        self.trunk = TRUNKS[trunk](in_channels, image_size, **trunk_options)
        self.shared, features = dense_layers(self.trunk.features, shared_units, dropout)
        self.age_head = _Head(features, head_units, dropout, self.coding.outputs)
        self.gender_head = _Head(features, head_units, dropout, 1)
        initialise(self, weight_init)

    def forward(self, images: Tensor) -> Outputs:
        """Answers for a batch.

        Args:
            images: `[batch, channels, size, size]`, uint8, or float in [0, 1].
        """
        if images.dtype == torch.uint8:
            images = images.float() / 255
        features = self.shared(self.trunk((images - self.mean) / self.std))
        return Outputs(self.age_head(features), self.gender_head(features).squeeze(1))

    def years(self, outputs: Outputs) -> Tensor:
        """Decodes the age head to years `[batch]`."""
        return self.coding.decode(outputs.age)


class _Head(nn.Sequential):
    """Dense layers, and a last one that mixed precision leaves in float32.

    In bfloat16, whose numbers have eight bits, an age of 70 could only move in steps of a third of a year.
    """

    def __init__(self, inputs: int, units: Sequence[int], dropout: float, outputs: int):
        hidden, width = dense_layers(inputs, units, dropout)
        super().__init__(*hidden, nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features `[batch, inputs]` to float32 outputs `[batch, outputs]`."""
        *hidden, last = self
        for layer in hidden:
            features = layer(features)
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = last(features.float())
        return outputs
