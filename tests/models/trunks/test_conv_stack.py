"""The plain convolutional trunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from agegender.errors import AgeGenderError
from agegender.models.trunks import onednn
from agegender.models.trunks.conv_stack import ConvStack
from agegender.models.trunks.onednn import can_train_in_onednn_layout, supports_dtype


def test_classic_stack_without_padding_ends_in_6_x_6_x_256() -> None:
    # 128 -> 126 -> 63 -> 61 -> 30 -> 28 -> 14 -> 12 -> 6, as the classic notebook's summary prints
    trunk = ConvStack(1, 128)
    assert trunk.num_features == 256 * 6 * 6
    assert trunk(torch.zeros(1, 1, 128, 128)).shape == (1, 256 * 6 * 6)


def test_classic_stack_with_padding_ends_in_8_x_8_x_256() -> None:
    assert ConvStack(3, 128, padding="same").num_features == 256 * 8 * 8


@settings(max_examples=25)
@given(
    image_size=st.integers(8, 70),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    kernel_size=st.sampled_from([1, 3, 5]),
    padding=st.sampled_from(["valid", "same"]),
    batch_norm=st.booleans(),
    in_channels=st.sampled_from([1, 3]),
)
def test_conv_stack_accepts_exactly_the_sizes_that_forward_supports(
    image_size: int, channels: list[int], kernel_size: int, padding: str, batch_norm: bool, in_channels: int
) -> None:
    stages = [nn.Sequential(nn.Conv2d(1, 1, kernel_size, padding=padding), nn.MaxPool2d(2)) for _ in channels]
    try:
        nn.Sequential(*stages)(torch.zeros(1, 1, image_size, image_size))
        possible = True
    except RuntimeError:
        possible = False
    options = (in_channels, image_size, channels, kernel_size, padding, batch_norm)
    if possible:
        trunk = ConvStack(*options)  # type: ignore[arg-type]
        assert trunk(torch.zeros(2, in_channels, image_size, image_size)).shape == (2, trunk.num_features)
    else:
        with pytest.raises(AgeGenderError, match=f"data.image_size={image_size} is too small"):
            ConvStack(*options)  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_before_relu_equals_pooling_after_it(padding: str) -> None:
    torch.manual_seed(0)
    trunk = ConvStack(1, 33, (4, 8), padding=padding)  # type: ignore[arg-type]
    images = torch.randn(3, 1, 33, 33)
    expected = images
    for convolution in [layer for layer in trunk.stages if isinstance(layer, nn.Conv2d)]:
        expected = functional.max_pool2d(functional.relu(convolution(expected)), 2)
    with torch.no_grad():
        assert torch.equal(trunk(images), expected.flatten(1))


@settings(max_examples=20)
@given(
    image_size=st.integers(16, 40),
    channels=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    kernel_size=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same"]),
    in_channels=st.sampled_from([1, 3]),
    channels_last=st.booleans(),
)
def test_memory_layout_changes_neither_outputs_nor_gradients(
    image_size: int, channels: list[int], kernel_size: int, padding: str, in_channels: int, channels_last: bool
) -> None:
    torch.manual_seed(0)
    fits = kernel_size % 2 == 1 if padding == "same" else image_size >= 2 ** len(channels) * (kernel_size + 1)
    assume(fits)
    trunk = ConvStack(in_channels, image_size, channels, kernel_size, padding)  # type: ignore[arg-type]
    images = torch.randn(3, in_channels, image_size, image_size)
    if channels_last:
        trunk, images = trunk.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    results = []
    for forward in (trunk.forward, trunk.stages):
        trunk.zero_grad()
        features = forward(images)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        results.append([features.detach(), *(weight.grad for weight in trunk.parameters())])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4 * (1 + there.abs().max().item()))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("channels", [(4,), (32, 64, 48)])
def test_memory_layout_changes_less_than_bfloat16_rounding(padding: str, channels: tuple[int]) -> None:
    torch.manual_seed(0)
    trunk = ConvStack(3, 40, channels, padding=padding)  # type: ignore[arg-type]
    images = torch.randn(8, 3, 40, 40)
    results = []
    for forward, mixed in ((trunk.stages, False), (trunk.stages, True), (trunk.forward, True)):
        trunk.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            features = forward(images)
        (features.float() * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        results.append([features.detach().float(), *(weight.grad for weight in trunk.parameters())])
    for exact, plain, here in zip(*results, strict=True):
        assert here.dtype == torch.float32
        error, usual = ((found - exact).norm() / exact.norm() for found in (here, plain))
        assert error < 1.5 * usual + 1e-3


def test_memory_layout_is_pytorchs_without_gradients() -> None:
    images = torch.zeros(1, 1, 32, 32)
    assert can_train_in_onednn_layout(images)
    with torch.no_grad():
        assert not can_train_in_onednn_layout(images)


def test_supports_dtype_is_whether_onednn_has_the_precision() -> None:
    assert supports_dtype(torch.float32) and not supports_dtype(torch.float64)


def test_memory_layout_is_pytorchs_in_a_precision_that_onednn_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "supports_dtype", lambda dtype: dtype == torch.float32)
    images = torch.zeros(1, 1, 32, 32)
    assert can_train_in_onednn_layout(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_train_in_onednn_layout(images)
