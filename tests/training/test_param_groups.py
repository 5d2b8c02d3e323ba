"""Parameter groups: weight decay and the learning rate of the trunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.nodes import network_settings
from torch import nn

from agegender.models.network import MultiTaskNet
from agegender.training.optim import param_groups

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1}
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01}


def residual_net() -> MultiTaskNet:
    options: dict[str, Any] = {"stem": 4, "channels": [4, 8], "blocks": [1, 1], "head_units": [8]}
    return MultiTaskNet(32, 3, **network_settings({"name": "dldl"}, "residual", **options))


def by_name(groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in groups}


@pytest.mark.parametrize("trunk_lr_mult", [1.0, 0.1])
@pytest.mark.parametrize("optimizer", [ADAM, ADAMW])
def test_param_groups_hold_every_weight_once(optimizer: dict[str, Any], trunk_lr_mult: float) -> None:
    net, extra = residual_net(), nn.Parameter(torch.zeros(2))
    groups = param_groups(net, [extra], optimizer, trunk_lr_mult)
    trained = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(trained) == sorted(id(weight) for weight in (*net.parameters(), extra))


def test_param_groups_decay_all_weights_but_biases_and_norms() -> None:
    net = residual_net()
    groups = by_name(param_groups(net, [], ADAMW))
    assert set(groups) == {"weights", "weights_no_decay"}
    assert groups["weights_no_decay"]["weight_decay"] == 0 and "weight_decay" not in groups["weights"]
    spared = {id(weight) for weight in groups["weights_no_decay"]["params"]}
    for layer in net.modules():
        for name, weight in layer.named_parameters(recurse=False):
            decays = isinstance(layer, nn.Conv2d | nn.Linear) and name == "weight"
            assert (id(weight) in spared) != decays


def test_param_groups_scale_the_rate_of_the_trunk_only() -> None:
    net = residual_net()
    groups = by_name(param_groups(net, [], ADAMW, 0.1))
    assert {name: group.get("lr") for name, group in groups.items()} == {
        "trunk": pytest.approx(0.001),
        "trunk_no_decay": pytest.approx(0.001),
        "heads": None,
        "heads_no_decay": None,
    }
    trunk = {id(weight) for weight in net.trunk.parameters()}
    slow = {id(weight) for name in ("trunk", "trunk_no_decay") for weight in groups[name]["params"]}
    assert slow == trunk


def test_param_groups_are_one_without_decay_and_multiplier() -> None:
    (group,) = param_groups(residual_net(), [], ADAM)
    assert set(group) == {"params"}  # unnamed, as there is one learning-rate curve
