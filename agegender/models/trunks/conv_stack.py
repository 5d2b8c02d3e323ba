"""The plain convolutional trunk of the classic notebooks: convolution, pooling, ReLU, once per stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from agegender.errors import AgeGenderError, require


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
        if self._trains_in_onednn_layout(images):
            return self._forward_in_onednn_layout(images)
        features: Tensor = self.stages(images)
        return features

    def _trains_in_onednn_layout(self, images: Tensor) -> bool:
        """Return whether all operations and their gradients are available in oneDNN's own layout."""
        return (
            self._plain
            and torch.is_grad_enabled()
            and images.device.type == "cpu"
            and images.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and (not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") == torch.bfloat16)
            and not torch.is_anomaly_enabled()  # anomaly detection doesn't support this layout
            and not torch.compiler.is_compiling()
        )

    def _forward_in_onednn_layout(self, images: Tensor) -> Tensor:
        """Compute `forward` in oneDNN's layout, which trains a tenth faster on a CPU.

        The images stay in the blocked layout that oneDNN computes in, and its max-pooling saves one byte per output
        for the backward pass, where PyTorch's saves eight.
        """
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        hidden = images.to(dtype).to_mkldnn()
        for stage in self.stages[:-1]:
            if isinstance(stage, nn.ReLU):
                # not in place: oneDNN's pooling needs its output in the backward pass
                hidden = functional.relu(hidden)
            elif isinstance(stage, nn.Conv2d):
                hidden = _Convolution.apply(hidden, stage.weight, stage.bias, self._padding)
            else:
                hidden = stage(hidden)
        return hidden.to_dense().flatten(1)


class _Convolution(torch.autograd.Function):
    """A convolution of images in oneDNN's layout with weights in PyTorch's, in the images' precision.

    PyTorch has both kernels, but for bfloat16 its own convolution rejects weights whose layout differs from the
    images', and training with weights in oneDNN's layout.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.weight_dtype, weight, bias = weight.dtype, weight.to(images.dtype), bias.to(images.dtype)
        ctx.save_for_backward(images, weight)
        stride, pad, dilation = ctx.geometry = [1, 1], [padding, padding], [1, 1]
        features: Tensor = torch.ops.aten.mkldnn_convolution(images, weight, bias, pad, stride, dilation, 1)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        images, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, True]
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradients[0], images, weight, [len(weight)], *ctx.geometry, False, [0, 0], 1, wanted
        )
        return of_images, of_weight.to(ctx.weight_dtype), of_bias.to(ctx.weight_dtype), None
