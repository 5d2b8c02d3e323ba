"""The plain convolutional trunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from agegender.errors import AgeGenderError
from agegender.models.conv_stack import ConvStack


def test_the_classic_stack_without_padding_ends_in_6_x_6_x_256() -> None:
    # 128 -> 126 -> 63 -> 61 -> 30 -> 28 -> 14 -> 12 -> 6, as the classic notebook's summary prints
    trunk = ConvStack(1, 128)
    assert trunk.features == 256 * 6 * 6
    assert trunk(torch.zeros(1, 1, 128, 128)).shape == (1, 256 * 6 * 6)


def test_the_classic_stack_with_padding_ends_in_8_x_8_x_256() -> None:
    assert ConvStack(3, 128, padding="same").features == 256 * 8 * 8


@settings(deadline=None, max_examples=40)
@given(
    image_size=st.integers(8, 70),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    kernel_size=st.sampled_from([1, 3, 5]),
    padding=st.sampled_from(["valid", "same"]),
    batch_norm=st.booleans(),
    in_channels=st.sampled_from([1, 3]),
)
def test_exactly_the_sizes_that_pytorch_can_do_are_taken_and_features_is_what_forward_returns(
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
        assert trunk(torch.zeros(2, in_channels, image_size, image_size)).shape == (2, trunk.features)
    else:
        with pytest.raises(AgeGenderError, match=f"data.image_size={image_size} is too small"):
            ConvStack(*options)  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_before_the_relu_equals_pooling_after_it(padding: str) -> None:
    torch.manual_seed(0)
    trunk = ConvStack(1, 33, (4, 8), padding=padding)  # type: ignore[arg-type]
    images = torch.randn(3, 1, 33, 33)
    expected = images
    for convolution in [layer for layer in trunk.stages if isinstance(layer, nn.Conv2d)]:
        expected = functional.max_pool2d(functional.relu(convolution(expected)), 2)
    with torch.no_grad():
        assert torch.equal(trunk(images), expected.flatten(1))


@settings(deadline=None, max_examples=40)
@given(
    image_size=st.integers(16, 40),
    channels=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    kernel_size=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same"]),
    in_channels=st.sampled_from([1, 3]),
    channels_last=st.booleans(),
)
def test_the_layout_in_which_a_cpu_trains_changes_neither_answers_nor_gradients(
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


def test_without_gradients_or_in_mixed_precision_the_layout_is_pytorchs() -> None:
    trunk, images = ConvStack(1, 32, (4,)), torch.zeros(1, 1, 32, 32)
    assert trunk._trains_in_onednn_layout(images)
    with torch.no_grad():
        assert not trunk._trains_in_onednn_layout(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trunk._trains_in_onednn_layout(images)


def test_images_too_small_for_the_stages_are_refused_with_ways_on() -> None:
    with pytest.raises(AgeGenderError, match=r"data\.image_size=16 is too small for 4 stages.*padding=same"):
        ConvStack(1, 16)


def test_batch_norm_replaces_the_bias_and_normalises() -> None:
    trunk = ConvStack(1, 16, (4,), batch_norm=True)
    convolution = next(layer for layer in trunk.stages if isinstance(layer, nn.Conv2d))
    assert convolution.bias is None
    norm = next(layer for layer in trunk.stages if isinstance(layer, nn.BatchNorm2d))
    normalised = norm(convolution(torch.randn(64, 1, 16, 16) * 9 + 4))
    assert normalised.mean().abs() < 1e-4 and abs(normalised.std() - 1) < 1e-2


def test_conv_dropout_drops_whole_channels_in_training_only() -> None:
    trunk = ConvStack(1, 8, (64,), padding="same", conv_dropout=0.5)
    nn.init.ones_(trunk.stages[0].weight)  # type: ignore[arg-type]
    images = torch.ones(1, 1, 8, 8)
    channels = trunk.train()(images).view(64, -1)
    dropped = (channels == 0).all(1)
    assert 10 < dropped.sum() < 54
    assert (channels[~dropped] > 0).all()
    assert (trunk.eval()(images) > 0).all()
