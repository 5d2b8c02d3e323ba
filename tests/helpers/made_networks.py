"""Checkpoint files of small networks with plausible weights, made without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from helpers.nodes import network_settings
from torch import nn

from agegender.models.network import MultiTaskNet
from agegender.tasks.confidence import ClassCalibration
from agegender.tasks.intervals import STEPS, IntervalCalibration
from agegender.tasks.task import Task

# Asymmetric and different at every age, so that an export that confuses values is found.
INTERVALS = IntervalCalibration(
    values=[10.0, 30.0, 60.0],
    std=[0.9, 1.1, 1.3],
    low=[-1.2 - age / 100 for age in range(STEPS + 1)],
    high=[1.1 + age / 90 for age in range(STEPS + 1)],
    limits=[0.0, 120.0],
)
CONFIDENCE = ClassCalibration(temperature=1.4, min_confidence=0.5, answered=1.0)
TRUNKS: dict[str, dict[str, Any]] = {
    "conv_stack": {"channels": [8, 16], "head_units": [16]},
    "residual": {"stem": 8, "channels": [16, 24], "blocks": [1, 1], "head_units": [], "mean": [0.4, 0.5, 0.6]},
    "torchvision": {"name": "resnet18", "head_units": []},
}


def calibration_of(task: Task, confidence: ClassCalibration = CONFIDENCE) -> IntervalCalibration | ClassCalibration:
    """Return a plausible calibration of a task."""
    return INTERVALS if task.kind == "number" else confidence


def save_network(
    path: Path,
    trunk: str = "conv_stack",
    age: dict[str, Any] | None = None,
    calibrated: bool = True,
    confidence: ClassCalibration = CONFIDENCE,
    pictures: str = "photographs",
    **options: Any,
) -> Path:
    """Save a network for images of 32 x 32 pixels whose ages differ by years between faces.

    Args:
        path: Path of the checkpoint.
        trunk: See `TRUNKS`.
        age: Age task, see `network_settings`; by default `dldl`, unless `tasks` are given.
        calibrated: Whether the tasks are calibrated, by `INTERVALS` and `confidence`.
        confidence: Calibration of the classes.
        pictures: Source of the training images, `drawn` or `photographs`.
        options: Further arguments of the network, such as `tasks`, see `network_settings`.
    """
    torch.manual_seed(0)
    age = age or (None if "tasks" in options else {"name": "dldl"})
    settings: dict[str, Any] = {"image_size": 32, "in_channels": 3, "age": age}
    described = network_settings(trunk=trunk, **settings | TRUNKS[trunk] | options)
    network = MultiTaskNet(**described)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # at initialization, norms and residual branches have no effect
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    with torch.no_grad():
        for head in network.heads.values():
            for values in list(head.children())[-1].parameters():
                values.mul_(3)
    for _, task in network.each_task():
        task.calibration = calibration_of(task, confidence) if calibrated else None
    metadata = {
        "version": "0.1.0",
        "network": described,
        "tasks": [info.to_dict() for info in network.infos],
        "split": {"fingerprint": "0123456789ab", "pictures": pictures},
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"agegender": metadata, "state_dict": state}, path)
    return path
