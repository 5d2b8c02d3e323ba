"""A compact residual trunk for faces of about 128 x 128 pixels, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from agegender.errors import AgeGenderError, require


class ResNetTrunk(nn.Module):
    """A strided stem and pooling, stages of basic residual blocks, and global average pooling.

    The blocks and their shortcuts are those of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
    (projections where the shape changes, option B). Each block's last batch norm starts with a gain of zero, so that
    the block starts as its shortcut: Goyal et al., "Accurate, Large Minibatch SGD", 2017.

    Attributes:
        num_features: Number of features that `forward` returns per image.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        stem: int = 32,
        channels: Sequence[int] = (64, 96, 192),
        blocks: Sequence[int] = (1, 1, 1),
    ):
        """Build the stem, which divides the side by 4, and the stages, each of which but the first halves it.

        Args:
            in_channels: Color channels of the images.
            image_size: Side of the images, in pixels.
            stem: Filters of the first convolution.
            channels: Filters of each stage; the last value is the number of features.
            blocks: Blocks of each stage.

        Raises:
            AgeGenderError: A value is out of range, or the images are too small for the number of stages.
        """
        super().__init__()
        require(stem > 0, f"model.trunk.stem={stem} must be positive")
        fits = len(channels) > 0 and min(channels) > 0
        require(fits, f"model.trunk.channels={list(channels)} must be one positive number per stage")
        fits = len(blocks) == len(channels) and min(blocks) > 0
        wanted = f"{len(channels)} positive numbers, one per stage of model.trunk.channels={list(channels)}"
        require(fits, f"model.trunk.blocks={list(blocks)} must be {wanted}")
        # Below 2 x 2 pixels, a last batch of one image has a single value per channel, which batch norm rejects.
        smallest = 4 * 2 ** (len(channels) - 1) + 3
        if image_size < smallest:
            raise AgeGenderError(
                f"data.image_size={image_size} is too small for {len(channels)} stages of model.trunk.channels; "
                f"use images of at least {smallest} pixels, or fewer stages"
            )
        # Pooling and ReLU commute; after pooling, the ReLU has a quarter of the work.
        layers: list[nn.Module] = [*_normalized(in_channels, stem, 3, 2), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        previous = stem
        for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            for block in range(count):
                layers.append(_Block(previous, width, stride=2 if stage > 0 and block == 0 else 1))
                previous = width
        self.stages = nn.Sequential(*layers)
        self.num_features = previous

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[batch, channels, size, size]` to features `[batch, features]`."""
        maps: Tensor = self.stages(images)
        return maps.mean((2, 3))


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: He et al.'s basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = _normalized(inputs, outputs, 3, stride)
        self.second = _normalized(outputs, outputs, 3, 1)
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _Shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `[batch, inputs, side, side]` to `[batch, outputs, side / stride, side / stride]`."""
        outputs: Tensor = self.relu(self.second(self.relu(self.first(maps))) + self.shortcut(maps))
        return outputs


class _Shortcut(nn.Sequential):
    """A strided 1x1 convolution and batch norm.

    Pixels are dropped before the convolution, which is the same as its stride: oneDNN's gradient of strided 1x1
    convolutions of fewer than 16 channels writes outside its memory (uxlfoundation/oneDNN#6035).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(*_normalized(inputs, outputs, 1, 1))
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """Map `[batch, inputs, side, side]` to `[batch, outputs, side / stride, side / stride]`."""
        outputs: Tensor = super().forward(maps[..., :: self.stride, :: self.stride])  # type: ignore[no-untyped-call]
        return outputs


def _normalized(inputs: int, outputs: int, kernel_size: int, stride: int) -> nn.Sequential:
    """Return a convolution without bias, and batch norm, whose offset replaces the bias."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
