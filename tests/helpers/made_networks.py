"""Checkpoint files of small networks with plausible weights, made without a training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from helpers.nodes import network_settings
from torch import nn

from agegender.models.network import MultiTaskNet
from agegender.tasks.calibration import MAX_AGE, Calibration

# Asymmetric and different at every age, so that an export that confuses values is found.
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
    """Saves a network for images of 32 x 32 pixels whose ages differ by years between faces.

    Args:
        path: Path of the checkpoint.
        trunk: See `TRUNKS`.
        age: Age coding, see `network_settings`.
        calibration: Calibration of the network.
        pictures: Source of the training images, `drawn` or `photographs`.
        options: Further arguments of the network.
    """
    torch.manual_seed(0)
    settings: dict[str, Any] = {"image_size": 32, "in_channels": 3, "age": age or {"name": "dldl"}}
    described = network_settings(trunk=trunk, **settings | TRUNKS[trunk] | options)
    network = MultiTaskNet(**described)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # at initialization, norms and residual branches have no effect
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    with torch.no_grad():
        for head in (network.age_head, network.gender_head):
            for values in head[-1].parameters():
                values.mul_(3)
    metadata = {
        "version": "0.1.0",
        "network": described,
        "labels": {"gender": ["male", "female"], "age": "years"},
        "split": {"fingerprint": "0123456789ab", "pictures": pictures},
        "calibration": None if calibration is None else asdict(calibration),
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"agegender": metadata, "state_dict": state}, path)
    return path
