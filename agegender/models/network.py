"""The network: a pure nn.Module from pixels to a raw age and a gender logit, built from plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from agegender.config.allowlist import instantiate
from agegender.errors import AgeGenderError, require
from agegender.models.layers import FeatureScaler, WeightInit, init_weights, mlp
from agegender.models.trunks.trunk import Trunk, build_trunk
from agegender.tasks.age_coding import AgeCoding
from agegender.tasks.calibration import Calibration

Trainable = Literal["none", "upper", "all"]


class RawOutputs(NamedTuple):
    """The raw outputs of the network, always float32.

    Attributes:
        age: Raw age head `[batch, outputs]`; `AgeGenderNet.years` decodes it.
        gender: Raw gender head `[batch]`; `AgeGenderNet.p_female` returns its probability.
    """

    age: Tensor
    gender: Tensor


class AgeGenderNet(nn.Module):
    """A shared trunk with an age head and a gender head; the images' normalization is part of it."""

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
        """Build the network from plain values, which a checkpoint stores to build it again.

        Args:
            image_size: Side of the images, in pixels.
            in_channels: Color channels of the images: 1 (gray) or 3 (RGB).
            age: The age coding (see `AgeCoding`): its class as `_target_`, and its arguments.
            trunk: The trunk (see `Trunk`): likewise.
            mean: Subtracted from pixels in [0, 1]; one value, or one per color channel.
            std: Divides them afterwards; likewise.
            shared_units: Widths of dense layers between the trunk and both heads.
            head_units: Widths of each head's own dense layers.
            feature_dropout: Probability of dropping one of the trunk's features, before any dense layer.
            dropout: Probability of dropping a unit after each dense layer.
            gender_output: `logit`, or `sigmoid`: the network outputs a probability, and the loss is Keras's
                cross-entropy of the clipped probability, whose gradient is zero for a face whose logit is wrong by more
                than 16.
            weight_init: Initialization of convolutions and dense layers, except of trunks with `keeps_own_init`.
            trainable: Which of the trunk's layers are trained. `none`: the trunk is frozen, including its batch-norm
                statistics. `upper`: those in the trunk's `upper`.
            feature_clip: Standardize the trunk's features (see `FeatureScaler`) and clip them at this many standard
                deviations; None for neither.

        Raises:
            AgeGenderError: Values are inconsistent, or a class is not trusted (see `agegender.config.allowlist`).
        """
        super().__init__()
        for name, probability in (("dropout", dropout), ("feature_dropout", feature_dropout)):
            require(0 <= probability < 1, f"model.{name}={probability} must be at least 0 and below 1")
        require(min(std, default=0) > 0, f"model.std={list(std)} must be above zero")
        for name, units in (("shared_units", shared_units), ("head_units", head_units)):
            require(min(units, default=1) > 0, f"model.{name}={list(units)} must be positive")
        for name, values in (("mean", mean), ("std", std)):
            fits = len(values) in (1, in_channels)
            require(fits, f"model.{name}={list(values)} needs 1 value or {in_channels}, one per color channel")
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1))
        # Fitted on the validation faces by AgeGenderModule. Not a buffer, so that the EMA leaves it alone.
        self.calibration: Calibration | None = None
        self.image_size, self.in_channels, self.gender_output = image_size, in_channels, gender_output
        self.coding: AgeCoding = instantiate(age, "age")
        self.trunk: Trunk = build_trunk(trunk, in_channels, image_size)
        self.trainable = trainable
        self._freeze()
        self.scaler = None if feature_clip is None else FeatureScaler(self.trunk.num_features, feature_clip)
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.shared, features = mlp(self.trunk.num_features, shared_units, dropout)
        self.age_head = _Head(features, head_units, dropout, self.coding.layer)
        self.gender_head = _Head(features, head_units, dropout, lambda width: nn.Linear(width, 1))
        for part in (self.trunk, self.shared, self.age_head, self.gender_head):
            if not getattr(part, "keeps_own_init", False):
                init_weights(part, weight_init)

    def forward(self, images: Tensor) -> RawOutputs:
        """Compute the raw outputs of a batch of images.

        Args:
            images: `[batch, channels, size, size]`, uint8, or float in [0, 1].
        """
        return self.forward_heads(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the trunk's features `[batch, num_features]` of images; see `forward`."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        features: Tensor = self.trunk((images - self.mean) / self.std)
        return features

    def forward_heads(self, features: Tensor) -> RawOutputs:
        """Compute the raw outputs from the trunk's features `[batch, num_features]`."""
        if self.scaler is not None:
            features = self.scaler(features)
        features = self.shared(self.feature_dropout(features))
        gender = self.gender_head(features).squeeze(1)
        return RawOutputs(self.age_head(features), gender.sigmoid() if self.gender_output == "sigmoid" else gender)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.trainable == "none":
            self.trunk.eval()
        return self

    def _freeze(self) -> None:
        """Freeze the trunk's layers according to `trainable`."""
        if self.trainable == "all":
            return
        self.trunk.requires_grad_(False)
        if self.trainable == "upper":
            upper = getattr(self.trunk, "upper", None)
            if upper is None:
                raise AgeGenderError(
                    "model.trainable=upper requires a trunk that defines its upper layers (model=face): use "
                    "model.trainable=none or all"
                )
            for layer in upper:
                layer.requires_grad_(True)

    def forward_tta(self, images: Tensor) -> RawOutputs:
        """Return the mean of the raw outputs for a batch of images and for their mirror images."""
        straight, mirrored = self(images), self(images.flip(3))
        return RawOutputs(*(torch.stack(pair).mean(0) for pair in zip(straight, mirrored, strict=True)))

    def years(self, outputs: RawOutputs) -> Tensor:
        """Decode the age head to years `[batch]`."""
        return self.coding.decode(outputs.age)

    def stated(self, outputs: RawOutputs) -> Tensor:
        """Return the spread of each age `[batch]` in years that the coding predicts; ones if it predicts none."""
        spread = self.coding.spread(outputs.age)
        return torch.ones_like(outputs.age[:, 0]) if spread is None else spread

    def age_std(self, outputs: RawOutputs) -> Tensor:
        """Return the standard deviation of each predicted age's error `[batch]` in years.

        Without a calibration, this is the coding's spread, or NaN if it predicts none.
        """
        if self.calibration is not None and self.calibration.has_age:
            return self.calibration.predicted_std(self.years(outputs), self.stated(outputs))
        spread = self.coding.spread(outputs.age)
        return torch.full_like(outputs.age[:, 0], math.nan) if spread is None else spread

    def age_interval(self, outputs: RawOutputs) -> tuple[Tensor, Tensor]:
        """Return the ends of an interval that covers 80 % of the true ages, each `[batch]` in years.

        Without a calibration, both are NaN.
        """
        if self.calibration is None or not self.calibration.has_age:
            unknown = torch.full_like(outputs.age[:, 0], math.nan)
            return unknown, unknown
        return self.calibration.interval(self.years(outputs), self.stated(outputs))

    def gender_logit(self, outputs: RawOutputs) -> Tensor:
        """Return the uncalibrated logit of the label female `[batch]`."""
        return outputs.gender.logit(eps=1e-7) if self.gender_output == "sigmoid" else outputs.gender

    def p_female(self, outputs: RawOutputs) -> Tensor:
        """Return the probability of the label female `[batch]`, calibrated if there is a calibration."""
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return (self.gender_logit(outputs) / temperature).sigmoid()

    def gender_loss(self, outputs: RawOutputs, gender: Tensor) -> Tensor:
        """Return the mean binary cross-entropy (a scalar, in nats) for genders `[batch]`, 0 or 1."""
        if self.gender_output == "logit":
            return functional.binary_cross_entropy_with_logits(outputs.gender, gender)
        with torch.autocast(outputs.gender.device.type, enabled=False):  # supported in float32 only
            # Keras's bounds. Keras on TensorFlow uses the logit of a sigmoid layer instead: `gender_output=logit`.
            return functional.binary_cross_entropy(outputs.gender.clamp(1e-7, 1 - 1e-7), gender)


class _Head(nn.Sequential):
    """Dense layers, the last of which runs in float32 under mixed precision.

    In bfloat16, with a significand of eight bits, an age near 70 is a multiple of a third of a year.
    """

    def __init__(self, inputs: int, units: Sequence[int], dropout: float, last: Callable[[int], nn.Module]):
        hidden, width = mlp(inputs, units, dropout)
        super().__init__(*hidden, last(width))

    def forward(self, features: Tensor) -> Tensor:
        """Map features `[batch, inputs]` to float32 outputs `[batch, outputs]`."""
        *hidden, last = self
        for layer in hidden:
            features = layer(features)
        with torch.autocast(features.device.type, enabled=False):
            outputs: Tensor = last(features.float())
        return outputs
