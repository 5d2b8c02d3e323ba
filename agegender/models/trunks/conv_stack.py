"""The plain convolutional trunk of the classic notebooks: convolution, pooling, ReLU, once per stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from agegender.errors import AgeGenderError, require
from agegender.models.trunks.onednn import can_train_in_onednn_layout, forward_in_onednn_layout


class ConvStack(nn.Module):
    """Stages of Conv2d, optional batch norm, 2x2 max-pooling and ReLU, flattened at the end.

    Pooling precedes the ReLU: both are monotonic, so the order doesn't matter, and the ReLU has a quarter of the work.

    Attributes:
        num_features: Number of features that `forward` returns per image.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        kernel_size: int = 3,
        padding: Literal["valid", "same"] = "valid",
        batch_norm: bool = False,
        conv_dropout: float = 0.0,
    ):
        """Build the stages.

        Args:
            in_channels: Color channels of the images.
            image_size: Side of the images, in pixels.
            channels: Filters of each stage; each halves the side.
            kernel_size: Side of the filters.
            padding: `valid` (none) or `same`.
            batch_norm: Normalize each stage's convolution over the batch.
            conv_dropout: Probability of dropping a whole channel after each stage.

        Raises:
            AgeGenderError: A value is out of range, or the images are too small for the number of stages.
        """
        super().__init__()
        fits = len(channels) > 0 and min(channels) > 0
        require(fits, f"model.trunk.channels={list(channels)} must be one positive number per stage")
        require(kernel_size > 0, f"model.trunk.kernel_size={kernel_size} must be positive")
        require(0 <= conv_dropout < 1, f"model.trunk.conv_dropout={conv_dropout} must be at least 0 and below 1")
        stages: list[nn.Module] = []
        side, previous = image_size, in_channels
        for width in channels:
            stages.append(nn.Conv2d(previous, width, kernel_size, padding=padding, bias=not batch_norm))
            if batch_norm:
                stages.append(nn.BatchNorm2d(width))
            stages += [nn.MaxPool2d(2, 2), nn.ReLU(inplace=True)]
            if conv_dropout:
                stages.append(nn.Dropout2d(conv_dropout))
            side, previous = (side if padding == "same" else side - kernel_size + 1) // 2, width
            if side < 1:
                raise AgeGenderError(
                    f"data.image_size={image_size} is too small for {len(channels)} stages of model.trunk.channels "
                    f"with model.trunk.padding={padding}; use larger images, fewer stages or model.trunk.padding=same"
                )
        self.stages = nn.Sequential(*stages, nn.Flatten())
        self._padding = kernel_size // 2 if padding == "same" else 0
        self._plain = not batch_norm and not conv_dropout and (padding == "valid" or kernel_size % 2 == 1)
        self.num_features = previous * side * side

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[batch, channels, size, size]` to features `[batch, features]`."""
        if self._plain and can_train_in_onednn_layout(images):
            return forward_in_onednn_layout(self.stages[:-1], images, self._padding)
        features: Tensor = self.stages(images)
        return features
