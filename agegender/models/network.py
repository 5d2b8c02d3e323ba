"""The network: pixels in; a raw age and a gender logit out. A pure nn.Module, built from plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from agegender.errors import AgeGenderError, require
from agegender.models.age_coding import AgeCoding
from agegender.models.calibration import Calibration
from agegender.models.layers import FeatureScaler, WeightInit, dense_layers, initialise
from agegender.models.trunk import Trunk, build_trunk
from agegender.targets import build

Trainable = Literal["none", "upper", "all"]


class Outputs(NamedTuple):
    """What the network answers, always float32.

    Attributes:
        age: Raw age head `[batch, outputs]`; `AgeGenderNet.years` decodes it.
        gender: Raw gender head `[batch]`; `AgeGenderNet.p_female` makes a probability of it.
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
        trunk: Mapping[str, Any],
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shared_units: Sequence[int] = (),
        head_units: Sequence[int] = (256,),
        feature_dropout: float = 0.0,
        dropout: float = 0.4,
        gender_output: Literal["logit", "sigmoid"] = "logit",
        weight_init: WeightInit = "xavier_uniform",
        trainable: Trainable = "all",
        feature_clip: float | None = None,
    ):
        """Builds the network from plain values, so that a checkpoint can carry all it takes to build it again.

        Args:
            image_size: Side of the pictures, in pixels.
            in_channels: Colour channels of the pictures: 1 (grey) or 3 (RGB).
            age: The age coding (see `AgeCoding`): its class as `_target_`, and its arguments.
            trunk: The trunk (see `Trunk`): likewise.
            mean: Subtracted from pixels in [0, 1]; one value, or one per colour channel.
            std: Divides them then; likewise.
            shared_units: Widths of dense layers between the trunk and both heads.
            head_units: Widths of each head's own dense layers.
            feature_dropout: Probability of dropping one of the trunk's features, before any dense layer.
            dropout: Probability of dropping a unit after each dense layer.
            gender_output: `logit`, or `sigmoid`: the network itself ends in a probability, and the loss is that of the
                clipped probability (Keras's formula for one), which learns nothing from a face whose logit is wrong by
                more than 16.
            weight_init: How convolutions and dense layers start; torchvision's trunks keep their own way.
            trainable: Which of the trunk's layers are trained. `none`: the trunk is a fixed function, batch norm's
                statistics included. `upper`: those that the trunk lists as `upper`.
            feature_clip: Standardize the trunk's features (see `FeatureScaler`) and clip them at so many standard
                deviations; None leaves them as they are.

        Raises:
            AgeGenderError: Values that don't fit each other, or a class that is not trusted (see `agegender.targets`).
        """
        super().__init__()
        for name, share in (("dropout", dropout), ("feature_dropout", feature_dropout)):
            require(0 <= share < 1, f"model.{name}={share} must be at least 0 and below 1")
        require(min(std, default=0) > 0, f"model.std={list(std)} must be above zero")
        for name, units in (("shared_units", shared_units), ("head_units", head_units)):
            require(min(units, default=1) > 0, f"model.{name}={list(units)} must be positive")
        for name, values in (("mean", mean), ("std", std)):
            fits = len(values) in (1, in_channels)
            require(fits, f"model.{name}={list(values)} needs 1 value or {in_channels}, one per colour channel")
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1))
        # What validation taught: no weight, so that an average of weights (EMA) leaves it alone. See AgeGenderModule.
        self.calibration: Calibration | None = None
        self.image_size, self.in_channels, self.gender_output = image_size, in_channels, gender_output
        self.coding: AgeCoding = build(age, "age")
        self.trunk: Trunk = build_trunk(trunk, in_channels, image_size)
        self.trainable = trainable
        self._freeze()
        self.scaler = None if feature_clip is None else FeatureScaler(self.trunk.num_features, feature_clip)
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.shared, features = dense_layers(self.trunk.num_features, shared_units, dropout)
        self.age_head = _Head(features, head_units, dropout, self.coding.layer)
        self.gender_head = _Head(features, head_units, dropout, lambda width: nn.Linear(width, 1))
        for part in (self.trunk, self.shared, self.age_head, self.gender_head):
            if not getattr(part, "keeps_own_init", False):
                initialise(part, weight_init)

    def forward(self, images: Tensor) -> Outputs:
        """Answers for a batch.

        Args:
            images: `[batch, channels, size, size]`, uint8, or float in [0, 1].
        """
        return self.answer(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Returns the trunk's features `[batch, num_features]` of images; see `forward`."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        features: Tensor = self.trunk((images - self.mean) / self.std)
        return features

    def answer(self, features: Tensor) -> Outputs:
        """Answers for a batch of the trunk's features `[batch, num_features]`."""
        if self.scaler is not None:
            features = self.scaler(features)
        features = self.shared(self.feature_dropout(features))
        gender = self.gender_head(features).squeeze(1)
        return Outputs(self.age_head(features), gender.sigmoid() if self.gender_output == "sigmoid" else gender)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.trainable == "none":
            self.trunk.eval()
        return self

    def _freeze(self) -> None:
        """Excludes the trunk's layers from training as `trainable` says."""
        if self.trainable == "all":
            return
        self.trunk.requires_grad_(False)
        if self.trainable == "upper":
            upper = getattr(self.trunk, "upper", None)
            if upper is None:
                raise AgeGenderError(
                    "model.trainable=upper is for trunks that say which layers are the upper ones (model=face): use "
                    "model.trainable=none or all"
                )
            for layer in upper:
                layer.requires_grad_(True)

    def flip_averaged(self, images: Tensor) -> Outputs:
        """Answers for a batch and for its mirror images, and returns the mean of both raw outputs."""
        straight, mirrored = self(images), self(images.flip(3))
        return Outputs(*(torch.stack(pair).mean(0) for pair in zip(straight, mirrored, strict=True)))

    def years(self, outputs: Outputs) -> Tensor:
        """Decodes the age head to years `[batch]`."""
        return self.coding.decode(outputs.age)

    def stated(self, outputs: Outputs) -> Tensor:
        """Returns the spread of each age `[batch]` in years as the coding states it; ones where it states none."""
        spread = self.coding.spread(outputs.age)
        return torch.ones_like(outputs.age[:, 0]) if spread is None else spread

    def age_std(self, outputs: Outputs) -> Tensor:
        """Returns the standard deviation of each answer's error `[batch]` in years.

        It is calibrated on the validation faces; before, it is what the coding states, or NaN.
        """
        if self.calibration is not None and self.calibration.of_ages:
            return self.calibration.error(self.years(outputs), self.stated(outputs))
        spread = self.coding.spread(outputs.age)
        return torch.full_like(outputs.age[:, 0], math.nan) if spread is None else spread

    def age_interval(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Returns the ends of an interval that holds 80 % of the true ages, each `[batch]` in years.

        It is calibrated on the validation faces; before, both are NaN.
        """
        if self.calibration is None or not self.calibration.of_ages:
            unknown = torch.full_like(outputs.age[:, 0], math.nan)
            return unknown, unknown
        return self.calibration.interval(self.years(outputs), self.stated(outputs))

    def gender_logit(self, outputs: Outputs) -> Tensor:
        """Returns the logit of the label female `[batch]`, as the network has it."""
        return outputs.gender.logit(eps=1e-7) if self.gender_output == "sigmoid" else outputs.gender

    def p_female(self, outputs: Outputs) -> Tensor:
        """Returns the probability of the label female `[batch]`, calibrated on the validation faces if it was."""
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return (self.gender_logit(outputs) / temperature).sigmoid()

    def gender_loss(self, outputs: Outputs, gender: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy (a scalar, in nats) for genders `[batch]`, 0 or 1."""
        if self.gender_output == "logit":
            return functional.binary_cross_entropy_with_logits(outputs.gender, gender)
        with torch.autocast(outputs.gender.device.type, enabled=False):  # PyTorch allows it in float32 only
            # Keras's bounds. Its TensorFlow backend takes the logit where it finds one, which `logit` is for.
            return functional.binary_cross_entropy(outputs.gender.clamp(1e-7, 1 - 1e-7), gender)


class _Head(nn.Sequential):
    """Dense layers, and a last one that mixed precision leaves in float32.

    In bfloat16, whose numbers have eight bits, an age of 70 could only move in steps of a third of a year.
    """

    def __init__(self, inputs: int, units: Sequence[int], dropout: float, last: Callable[[int], nn.Module]):
        hidden, width = dense_layers(inputs, units, dropout)
        super().__init__(*hidden, last(width))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features `[batch, inputs]` to float32 outputs `[batch, outputs]`."""
        *hidden, last = self
        for layer in hidden:
            features = layer(features)
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = last(features.float())
        return outputs
