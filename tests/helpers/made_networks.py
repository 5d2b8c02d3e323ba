"""Small networks with weights that a training could have left, as checkpoint files; no training is run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from helpers.nodes import network_settings
from torch import nn

from agegender.models.network import AgeGenderNet
from agegender.tasks.calibration import MAX_AGE, Calibration

# Lopsided, and another for every age: an export that mixed anything up would show.
CALIBRATION = Calibration(
    temperature=1.4,
    ages=[10.0, 30.0, 60.0],
    std=[0.9, 1.1, 1.3],
    low=[-1.2 - age / 100 for age in range(MAX_AGE + 1)],
    high=[1.1 + age / 90 for age in range(MAX_AGE + 1)],
)
TRUNKS: dict[str, dict[str, Any]] = {
    "conv_stack": {"channels": [8, 16], "head_units": [16]},
    "residual": {"stem": 8, "channels": [16, 24], "blocks": [1, 1], "head_units": [], "mean": [0.4, 0.5, 0.6]},
    "torchvision": {"name": "resnet18", "head_units": []},
}


def save_network(
    path: Path,
    trunk: str = "conv_stack",
    age: dict[str, Any] | None = None,
    calibration: Calibration | None = CALIBRATION,
    pictures: str = "photographs",
    **options: Any,
) -> Path:
    """Saves a network for pictures of 32 x 32 pixels, whose answers differ from face to face by years.

    Args:
        path: Where to.
        trunk: See `TRUNKS`.
        age: Its age coding, see `network_settings`.
        calibration: What validation would have taught.
        pictures: What it would have learned from, `drawn` or `photographs`.
        options: Further arguments of the network.
    """
    torch.manual_seed(0)
    settings: dict[str, Any] = {"image_size": 32, "in_channels": 3, "age": age or {"name": "dldl"}}
    described = network_settings(trunk=trunk, **settings | TRUNKS[trunk] | options)
    network = AgeGenderNet(**described)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as new, a residual block is its shortcut, and norms change nothing
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    with torch.no_grad():
        for head in (network.age_head, network.gender_head):
            for values in head[-1].parameters():
                values.mul_(3)
    told = {
        "version": "0.1.0",
        "network": described,
        "labels": {"gender": ["male", "female"], "age": "years"},
        "split": {"fingerprint": "0123456789ab", "pictures": pictures},
        "calibration": None if calibration is None else asdict(calibration),
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"agegender": told, "state_dict": state}, path)
    return path
