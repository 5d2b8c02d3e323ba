"""Baselines of the benchmarks without Lightning: a network, its training step, and a decoding loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from agegender.config.hydra_versions import version_base
from agegender.data.decode import eval_transform, read_image
from agegender.models.network import MultiTaskNet
from agegender.training.builders import network_kwargs

CONF = Path(__file__).parent.parent / "conf"
Labels = dict[str, Tensor]  # label -> [batch]


def settings_of(*overrides: str) -> dict[str, Any]:
    """Returns the settings that `train.py` would have with these overrides."""
    with initialize_config_dir(str(CONF), **version_base()):
        config = compose("train", list(overrides))
    settings: Any = OmegaConf.to_container(config, resolve=False)
    return {**settings, "model": OmegaConf.to_container(config.model, resolve=True)}


def network_of(*overrides: str) -> dict[str, Any]:
    """Return the arguments of the network that `train.py` would build with these overrides."""
    settings = settings_of(*overrides)
    return network_kwargs(settings, settings["data"]["image_size"], 1 if settings["data"]["grayscale"] else 3)[0]


def random_batch(net: MultiTaskNet, count: int, device: str = "cpu") -> tuple[Tensor, Labels]:
    """Return random images (uint8 `[count, channels, size, size]`, channels last) and labels: numbers up to 80."""
    shape = (count, net.image_size, net.image_size, net.in_channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    random = {task.label: torch.rand(count, device=device) * (len(task.classes) or 80) for _, task in net.each_task()}
    return images, {label: values.floor() for label, values in random.items()}


def total_loss(net: MultiTaskNet, images: Tensor, labels: Labels) -> Tensor:
    """Return the sum of the tasks' mean losses, for a batch without missing labels."""
    raw = net(images)
    losses = (task.loss(raw[name], labels[task.label]) for name, task in net.each_task())
    return torch.stack([loss.sum() / len(loss) for loss in losses]).sum()


def training_step(net: MultiTaskNet, lr: float = 1e-3, bf16: bool = False) -> Callable[[Tensor, Labels], None]:
    """Return a training step on images and labels: forward, backward, and a step of fused Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)

    def step(images: Tensor, labels: Labels) -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            loss = total_loss(net, images, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def decode(paths: Sequence[Path], size: int, grayscale: bool) -> int:
    """Decode images one after another, and return their number."""
    for path in paths:
        eval_transform(read_image(path), size, grayscale)
    return len(paths)
