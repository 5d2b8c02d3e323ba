"""Face-recognition networks as trunks: features from the maps before their embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from agegender.errors import require
from agegender.models.trunks.face_weights import DEFAULTS, Backbone, describe_weights, load_face_weights, published
from agegender.models.trunks.trunk import Published

# Eyes, tip of the nose and corners of the mouth in the 112 x 112 pixels that ArcFace's networks take:
# Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, as in InsightFace's code.
ARCFACE_TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
# The same five points in UTKFace's crops, as fractions of the side: `agegender.prediction.faces.alignment.TEMPLATE`.
CROP_TEMPLATE = ((0.2967, 0.2822), (0.6886, 0.2826), (0.4911, 0.5153), (0.3239, 0.6774), (0.6583, 0.6782))
SIDE = 112  # pixels
EMBEDDING = 512  # width of MobileFaceNet's embedding
_EPSILON = 1e-6  # added to a map's variance, so that the gradient of the square root stays finite


class FaceTrunk(nn.Module):
    """A face-recognition network whose maps at several depths are pooled to their means and standard deviations.

    The final embedding of such a network is trained to be invariant to age. The earlier layers are not: from the
    statistics of fine to coarse maps, two dense layers predict age and gender.

    Attributes:
        num_features: Number of features that `forward` returns per image.
        upper: The layers above the 28 x 28 maps, which `model.trainable=upper` trains.
    """

    keeps_own_init = True
    rows: Tensor
    columns: Tensor

    def __init__(self, in_channels: int, image_size: int, backbone: Backbone = "mobilefacenet", embedding: bool = True):
        """Build the network; `load_pretrained` loads published weights.

        Args:
            in_channels: Color channels of the images; gray ones are repeated to three channels.
            image_size: Side of the images, in pixels: crops like UTKFace's, which are aligned to ArcFace's template.
            backbone: `mobilefacenet` (Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face
                Verification on Mobile Devices", CCBR 2018; here InsightFace's wider variant), or `sface` (Zhong et al.,
                "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", IEEE TIP 2021, whose network
                is that of MobileNet, Howard et al. 2017).
            embedding: Add the embedding to the features; `mobilefacenet` only.

        Raises:
            AgeGenderError: The images are smaller than 32 pixels.
        """
        super().__init__()
        scale, shift = _onto_template()
        require(image_size >= 32, f"data.image_size={image_size} is too small for model=face: use at least 32 pixels")
        for name, offset in (("columns", shift[0]), ("rows", shift[1])):
            self.register_buffer(name, _resampling(image_size, scale, offset), persistent=False)
        plan = _PLANS[backbone]
        self.backbone = backbone
        self.stages = nn.ModuleList(nn.Sequential(*(_layer(*layer) for layer in stage)) for stage in plan)
        widths = [stage[-1][1] for stage in plan[1:]]
        embedding = embedding and backbone == "mobilefacenet"
        self.embed = nn.Sequential(*_embedding()) if embedding else None
        self.num_features = 2 * sum(widths) + (EMBEDDING if embedding else 0)

    @property
    def upper(self) -> Sequence[nn.Module]:
        """The stages above the 28 x 28 maps."""
        layers: list[nn.Module] = list(self.stages[2:])
        return layers + ([] if self.embed is None else [self.embed])

    @classmethod
    def published(
        cls, pretrained: str | bool | None, in_channels: int, backbone: Backbone | None = None, **options: Any
    ) -> Published:
        """Return the weights' backbone and the pixel statistics that it expects; see `Trunk`."""
        named = pretrained if isinstance(pretrained, str) else DEFAULTS[backbone or "mobilefacenet"]
        network, mean, std = describe_weights(named, backbone)
        return Published({"backbone": network, **options}, [mean], [std])

    def load_pretrained(self, pretrained: str | Literal[True]) -> str:
        """Load published weights, or those of a file; see `agegender.models.trunks.face_weights`."""
        pretrained = DEFAULTS[self.backbone] if pretrained is True else pretrained
        load_face_weights(self, pretrained)
        known = published(pretrained)
        return f"{pretrained}, {known.license}" if known else "a file of the user's own"

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images `[batch, channels, size, size]` to features `[batch, num_features]`, float32."""
        maps = self.align(images)
        features: list[Tensor] = []
        for depth, stage in enumerate(self.stages):
            maps = stage(maps)
            if depth:
                features += _statistics(maps)
        if self.embed is not None:
            features.append(self.embed(maps).float())
        return torch.cat(features, 1)

    def align(self, images: Tensor) -> Tensor:
        """Align UTKFace's crops to ArcFace's template, `[batch, 3, 112, 112]`; the border is extended.

        One shift and one scale apply to all images. Each output pixel is a weighted mean of input pixels, separable
        in rows and columns, so two matrix products compute it on any device and in any export.
        """
        with torch.autocast(images.device.type, enabled=False):
            aligned: Tensor = self.rows @ images.float() @ self.columns.T
        return aligned.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each map, both float32 `[batch, channels]`."""
    maps = maps.float()
    mean = maps.mean((2, 3))
    variance = (maps - mean[:, :, None, None]).square().mean((2, 3))
    return mean, (variance + _EPSILON).sqrt()


def _onto_template() -> tuple[float, tuple[float, float]]:
    """Return a crop's side in pixels of ArcFace's template, and its origin (x and y) there.

    The least-squares fit of a scale and a shift (Umeyama 1991, without the rotation, which would be 0.2 degrees).
    """
    points, onto = (torch.tensor(five, dtype=torch.float64) for five in (CROP_TEMPLATE, ARCFACE_TEMPLATE))
    before, after = points - points.mean(0), onto - onto.mean(0)
    scale = (before * after).sum() / before.square().sum()
    x, y = (onto.mean(0) - scale * points.mean(0)).tolist()
    return float(scale), (x, y)


def _resampling(side: int, scale: float, offset: float) -> Tensor:
    """Return a matrix `[112, side]` that resamples a crop along one axis to the template.

    Its rows hold a triangle filter as wide as a source pixel, or as a template pixel if that is larger (Pillow's
    bilinear filter). Pixels beyond the crop repeat its border.
    """
    step = side / scale  # source pixels per template pixel
    support = max(1.0, step)
    centers = (torch.arange(SIDE, dtype=torch.float64) + 0.5 - offset) * step - 0.5
    reach = int(support) + 1
    pixels = centers.floor().long()[:, None] + torch.arange(-reach, reach + 2)
    weights = (1 - (pixels - centers[:, None]).abs() / support).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(SIDE, side, dtype=torch.float64)
    return matrix.scatter_add_(1, pixels.clamp(0, side - 1), weights).float()


class _StridedDepthwise(nn.Conv2d):
    """A strided depthwise convolution, computed without a stride and subsampled when it is trained on a CPU.

    The results are the same. oneDNN's backward pass of the strided convolution takes five times as long as all the
    work that the stride saves.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.weight.requires_grad and maps.device.type == "cpu"):
            return super().forward(maps)
        across, down = self.stride
        dense = functional.conv2d(maps, self.weight, self.bias, 1, self.padding, groups=self.groups)
        return dense[:, :, ::across, ::down]


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    made = _StridedDepthwise if stride > 1 and groups == inputs else nn.Conv2d
    return made(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups)


def _layer(kind: str, outputs: int, inputs: int, *options: int) -> nn.Module:
    if kind == "conv":
        kernel, stride, groups = options
        return nn.Sequential(_conv(inputs, outputs, kernel, stride, groups), nn.PReLU(outputs))
    if kind == "separable":
        return nn.Sequential(
            _conv(inputs, inputs, 3, options[0], inputs), nn.PReLU(inputs), _conv(inputs, outputs), nn.PReLU(outputs)
        )
    return _Bottleneck(inputs, outputs, *options)


class _Bottleneck(nn.Module):
    """A depthwise convolution between two pointwise ones, with a linear output: Sandler et al. 2018."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, width),
            nn.PReLU(width),
            _conv(width, width, 3, stride, width),
            nn.PReLU(width),
            _conv(width, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        outputs: Tensor = self.body(maps)
        return maps + outputs if self.residual else outputs


def _embedding() -> tuple[nn.Module, ...]:
    return _conv(512, 64), nn.PReLU(64), nn.Flatten(), nn.Linear(64 * 7 * 7, EMBEDDING)


# Each network's stages, their layers as arguments of `_layer`; the features are the statistics of all but the first.
# In both networks the second stage is the last with 28 x 28 maps.
_PLANS: dict[str, Sequence[Sequence[tuple[Any, ...]]]] = {
    # InsightFace's MobileFaceNet with blocks (1, 4, 6, 2) and scale 2; batch norms are folded into the convolutions
    "mobilefacenet": (
        [("conv", 128, 3, 3, 2, 1), ("conv", 128, 128, 3, 1, 64)],
        [("bottleneck", 128, 128, 128, 2), *[("bottleneck", 128, 128, 128, 1)] * 4],
        [("bottleneck", 256, 128, 256, 2), *[("bottleneck", 256, 256, 256, 1)] * 6],
        [("bottleneck", 256, 256, 512, 2), *[("bottleneck", 256, 256, 256, 1)] * 2],
        [("conv", 512, 256, 1, 1, 1)],
    ),
    # as OpenCV Zoo publishes it: MobileNet's first version, with PReLU
    "sface": (
        [("conv", 32, 3, 3, 1, 1), ("separable", 64, 32, 1), ("separable", 128, 64, 2), ("separable", 128, 128, 1)],
        [("separable", 256, 128, 2), ("separable", 256, 256, 1)],
        [("separable", 512, 256, 2), *[("separable", 512, 512, 1)] * 5],
        [("separable", 1024, 512, 2), ("separable", 1024, 1024, 1)],
    ),
}
