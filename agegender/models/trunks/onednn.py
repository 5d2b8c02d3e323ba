"""Training of convolutions in oneDNN's own layout, a tenth faster on a CPU (docs/performance.md)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@cache
def supports_dtype(dtype: torch.dtype) -> bool:
    """Return whether oneDNN has convolutions of this precision for this CPU.

    In bfloat16, it needs AVX-512 or AVX-NE-CONVERT on x86. Elsewhere PyTorch computes them by itself, many times slower
    than in float32.
    """
    pixel = torch.ones(1, 1, 1, 1, dtype=dtype)
    try:
        with torch.autocast("cpu", enabled=False):
            torch.ops.aten.mkldnn_convolution(pixel, pixel, None, [0, 0], [1, 1], [1, 1], 1)
    except RuntimeError:
        return False
    return True


def can_train_in_onednn_layout(images: Tensor) -> bool:
    """Return whether convolution, max-pooling, ReLU and their gradients are available in oneDNN's own layout."""
    dtype = _dtype(images)
    return (
        torch.is_grad_enabled()
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and not torch.is_anomaly_enabled()  # anomaly detection doesn't support this layout
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and dtype in (torch.float32, torch.bfloat16)
        and supports_dtype(dtype)
    )


def _dtype(images: Tensor) -> torch.dtype:
    """Return the precision that convolutions of the images are computed in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype


def forward_in_onednn_layout(layers: Iterable[nn.Module], images: Tensor, padding: int) -> Tensor:
    """Apply convolutions, max-pooling and ReLU in oneDNN's layout, and flatten the result.

    The images stay in the blocked layout that oneDNN computes in, and its max-pooling saves one byte per output for the
    backward pass, where PyTorch's saves eight.

    Args:
        layers: `nn.Conv2d` of stride 1, `nn.MaxPool2d` and `nn.ReLU`.
        images: float32 `[batch, channels, height, width]`.
        padding: Zeros on each side, for all convolutions.

    Returns:
        Features `[batch, features]`.
    """
    hidden = images.to(_dtype(images)).to_mkldnn()
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            # not in place: oneDNN's pooling needs its output in the backward pass
            hidden = functional.relu(hidden)
        elif isinstance(layer, nn.Conv2d):
            hidden = _Convolution.apply(hidden, layer.weight, layer.bias, padding)
        else:
            hidden = layer(hidden)
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
