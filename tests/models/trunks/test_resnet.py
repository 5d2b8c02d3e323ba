"""The residual trunk, alone and in the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.nodes import network_settings, task_nodes
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.resnet import ResNetTrunk

CONF = Path(__file__).parents[3] / "conf"


def shipped_net(in_channels: int = 3, **options: Any) -> MultiTaskNet:
    shipped: Any = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "residual.yaml"))
    for key in {"stem", "channels", "blocks"} & {*options}:
        shipped["trunk"][key] = options.pop(key)
    return MultiTaskNet(128, in_channels, tasks=task_nodes(), **{**shipped, **options})


def test_default_resnet_ends_in_the_mean_over_8_x_8_x_192() -> None:
    trunk = ResNetTrunk(3, 128)
    seen: list[torch.Tensor] = []
    trunk.stages.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    features = trunk(torch.rand(2, 3, 128, 128))
    assert seen[0].shape == (2, 192, 8, 8) and trunk.num_features == 192
    torch.testing.assert_close(features, seen[0].mean((2, 3)))


def test_bundled_network_keeps_its_budget_of_weights_and_multiplications() -> None:
    net = shipped_net().eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        net(torch.rand(1, 3, 128, 128))
    assert sum(weight.numel() for weight in net.parameters()) <= 3_000_000
    assert counted.get_total_flops() / 2 <= 175e6  # a multiplication and an addition are two


@settings(max_examples=40)
@given(
    image_size=st.integers(1, 50),
    stem=st.integers(1, 4),
    stages=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=4),
    in_channels=st.sampled_from([1, 3]),
)
def test_resnet_refuses_sizes_too_small_for_batch_norm_of_one_image(
    image_size: int, stem: int, stages: list[tuple[int, int]], in_channels: int
) -> None:
    channels, blocks = [width for width, _ in stages], [count for _, count in stages]
    side = (image_size + 1) // 2 // 2  # a strided convolution rounds up, a pooling down
    for _ in stages[1:]:
        side = (side + 1) // 2
    if side >= 2:
        trunk = ResNetTrunk(in_channels, image_size, stem, channels, blocks).train()
        features = trunk(torch.rand(1, in_channels, image_size, image_size))
        assert features.shape == (1, trunk.num_features) and features.isfinite().all()
    else:
        with pytest.raises(AgeGenderError, match=rf"^data\.image_size={image_size} is too small for .*at least"):
            ResNetTrunk(in_channels, image_size, stem, channels, blocks)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"stem": 0}, r"model\.trunk\.stem=0 must be positive"),
        ({"channels": []}, r"model\.trunk\.channels=\[\] must be one positive number per stage"),
        ({"channels": [8, 0, 8]}, r"model\.trunk\.channels=\[8, 0, 8\] must be one positive number per stage"),
        ({"blocks": [1, 1]}, r"blocks=\[1, 1\] must be 3 positive numbers, one per stage of model\.trunk\.channels="),
        ({"blocks": [1, 0, 1]}, r"model\.trunk\.blocks=\[1, 0, 1\] must be 3 positive numbers"),
        ({"image_size": 18}, r"image_size=18 is too small for 3 stages of model\.trunk\.channels; use .* 19 pixels"),
    ],
)
def test_resnet_refuses_a_setting_out_of_range_by_name(options: dict[str, Any], place: str) -> None:
    with pytest.raises(AgeGenderError, match=place) as refused:
        ResNetTrunk(**{"in_channels": 3, "image_size": 64, **options})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("weight_init", ["pytorch", "xavier_uniform", "kaiming_uniform", "kaiming_normal"])
def test_new_residual_block_equals_its_shortcut_under_any_initialization(weight_init: str) -> None:
    trunk = shipped_net(blocks=[1, 2, 1], weight_init=weight_init).trunk
    assert isinstance(trunk, ResNetTrunk)
    blocks = [layer for layer in trunk.stages if hasattr(layer, "shortcut")]
    assert len(blocks) == 4
    maps = torch.rand(2, 32, 16, 16)
    for block in blocks:
        out = block(maps)
        torch.testing.assert_close(out, block.shortcut(maps).relu())  # type: ignore[operator]
        maps = out


def test_shortcut_has_weights_only_where_the_shape_changes() -> None:
    trunk = ResNetTrunk(1, 64, stem=8, channels=(8, 16), blocks=(2, 2))
    shortcuts = [layer.shortcut for layer in trunk.stages if hasattr(layer, "shortcut")]
    assert [isinstance(shortcut, nn.Identity) for shortcut in shortcuts] == [True, True, False, True]


def test_resnet_overfits_a_small_batch() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"stem": 8, "channels": [8, 16], "blocks": [1, 1], "head_units": []}
    net = MultiTaskNet(32, 3, **network_settings({"name": "mae"}, "residual", weight_init="kaiming_normal", **options))
    images = torch.rand(8, 3, 32, 32)
    labels = {"age": torch.tensor([5.0, 20, 30, 33, 40, 55, 60, 80]), "gender": torch.tensor([0.0, 1] * 4)}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        outputs = net(images)
        loss = sum(task.loss(outputs[name], labels[name]).mean() for name, task in net.each_task())
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_resnet_run_trains_and_its_checkpoint_is_evaluated_again(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    small = [setting for setting in TINY if not setting.startswith("model.")]
    small += [
        "model=residual",
        "model.trunk.stem=8",
        "model.trunk.channels=[8,16]",
        "model.trunk.blocks=[1,1]",
        "data.grayscale=false",
    ]
    trained = run_here("train.py", *small, "augment=strong", "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    again = run_here("train.py", *small, "fit=false", "weights=run", "hydra.run.dir=again")
    assert again.code == 0, again.err
    first, second = (metrics_of(tmp_path / name) for name in ("run", "again"))
    assert first["test/age_mae"] == second["test/age_mae"]


@pytest.mark.parametrize("side", [12, 13])
def test_shortcut_is_a_strided_convolution_without_onednns_kernel_for_it(side: int) -> None:
    trunk = ResNetTrunk(1, 64, stem=4, channels=(4, 8), blocks=(1, 1))
    convolutions = [layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.kernel_size >= layer.stride for layer in convolutions)
    shortcut: Any = trunk.stages[-1].shortcut
    maps = torch.rand(2, 4, side, side)
    torch.testing.assert_close(shortcut(maps), shortcut[1](functional.conv2d(maps, shortcut[0].weight, stride=2)))
