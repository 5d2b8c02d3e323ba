"""The network: a pure nn.Module from pixels to the raw outputs of each task, built from plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from agegender.errors import AgeGenderError, require
from agegender.models.layers import FeatureScaler, WeightInit, init_weights, mlp
from agegender.models.trunks.trunk import Trunk, build_trunk
from agegender.tasks.info import TaskInfo
from agegender.tasks.task import Task, build_tasks

Trainable = Literal["none", "upper", "all"]


RawOutputs = dict[str, Tensor]  # name of a task -> raw outputs of its head [batch, num_outputs], always float32


class MultiTaskNet(nn.Module):
    """A shared trunk with a head for each task; the images' normalization is part of it."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        trunk: Mapping[str, Any],
        tasks: Mapping[str, Mapping[str, Any]],
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
        shared_units: Sequence[int] = (),
        head_units: Sequence[int] = (256,),
        feature_dropout: float = 0.0,
        dropout: float = 0.4,
        weight_init: WeightInit = "xavier_uniform",
        trainable: Trainable = "all",
        feature_clip: float | None = None,
    ):
        """Build the network from plain values, which a checkpoint stores to build it again.

        Args:
            image_size: Side of the images, in pixels.
            in_channels: Color channels of the images: 1 (gray) or 3 (RGB).
            trunk: The trunk (see `Trunk`): its class as `_target_`, and its arguments.
            tasks: Name of each task (see `Task`) to its class and arguments, likewise.
            mean: Subtracted from pixels in [0, 1]; one value, or one per color channel.
            std: Divides them afterwards; likewise.
            shared_units: Widths of dense layers between the trunk and the heads.
            head_units: Widths of each head's own dense layers.
            feature_dropout: Probability of dropping one of the trunk's features, before any dense layer.
            dropout: Probability of dropping a unit after each dense layer.
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
        self.image_size, self.in_channels = image_size, in_channels
        built = build_tasks(tasks)
        self.tasks = nn.ModuleDict(built)
        self.trunk: Trunk = build_trunk(trunk, in_channels, image_size)
        self.trainable = trainable
        self._freeze()
        self.scaler = None if feature_clip is None else FeatureScaler(self.trunk.num_features, feature_clip)
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.shared, features = mlp(self.trunk.num_features, shared_units, dropout)
        self.heads = nn.ModuleDict(
            {name: _Head(features, head_units, dropout, task.head) for name, task in built.items()}
        )
        for part in (self.trunk, self.shared, self.heads):
            if not getattr(part, "keeps_own_init", False):
                init_weights(part, weight_init)

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any], source: object) -> Self:
        """Build the network that a checkpoint describes, with its weights.

        Args:
            checkpoint: As `load_checkpoint` returns it.
            source: Its path, for messages.

        Raises:
            AgeGenderError: The description is invalid, or the weights don't fit it or are not finite.
        """
        try:
            with _default_types():
                network = cls(**checkpoint["agegender"]["network"])
            network.load_state_dict(checkpoint["network"])
        except AgeGenderError as error:
            raise AgeGenderError(f"{source} can't be used: {error}") from None
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise AgeGenderError(f"{source} is damaged, or of another version ({reason}): use another") from None
        broken = [
            name
            for name, value in network.state_dict().items()
            if isinstance(value, Tensor) and not bool(torch.isfinite(value).all())
        ]
        require(
            not broken, f"{source} has weights that are not finite ({', '.join(broken[:3])}): use another checkpoint"
        )
        return network

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
        tasks = self.each_task()
        # The last head draws its dropout mask first, as in the trainings whose figures are published.
        raw = {name: task.activation(self.heads[name](features)) for name, task in reversed(tasks)}
        return {name: raw[name] for name, _ in tasks}

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
        return {name: torch.stack((straight[name], mirrored[name])).mean(0) for name in straight}

    def each_task(self) -> list[tuple[str, Task]]:
        """Return the tasks with their names, in the order of the config."""
        return list(self.tasks.items())  # type: ignore[arg-type]  # ModuleDict's values are modules to mypy

    @property
    def infos(self) -> tuple[TaskInfo, ...]:
        """The plain descriptions of the tasks."""
        return tuple(task.info for _, task in self.each_task())

    def decode(self, raw: RawOutputs) -> dict[str, dict[str, Tensor]]:
        """Return the point predictions of each task; see `Task.decode`."""
        return {name: task.decode(raw[name]) for name, task in self.each_task()}

    def predict(self, raw: RawOutputs) -> dict[str, Tensor]:
        """Return the columns of all tasks, each `[batch]`; see `Task.predict`."""
        return {column: value for name, task in self.each_task() for column, value in task.predict(raw[name]).items()}


@contextmanager
def _default_types() -> Iterator[None]:
    """Build modules in float32 on the CPU, whatever `torch.set_default_dtype` and `set_default_device` have set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


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
