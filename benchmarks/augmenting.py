"""Training speed with `augment=strong`, as a ratio to that without; the required ratio is 0.91 (a tenth more time).

Both sides train a network of `model=residual` in float32 on the same random bytes, 128 x 128 in RGB, batches of 64, on
all of PyTorch's threads: forward, both losses, backward, a step of fused Adam. The first passes each batch through
`Augment` with the settings of conf/augment/strong.yaml before. Each turn takes 4 steps. Rates are in images per second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from agegender.data.augmentation.build import build_augmentation
from agegender.data.augmentation.mixing import split_settings
from agegender.models.network import MultiTaskNet
from benchmarks.bare import CONF, network_of, random_batch, training_step
from benchmarks.paired import Paired, in_turn

BATCH = 64
STEPS = 4  # training steps per turn


def measure(rounds: int = 5) -> Paired:
    """Time training steps with and without the augmentation in turn."""
    generator = torch.Generator().manual_seed(0)
    strong: Any = OmegaConf.to_container(OmegaConf.load(CONF / "augment" / "strong.yaml"))
    augment = build_augmentation(split_settings(strong)[0])
    return in_turn(
        "training with augment=strong against augment=none",
        _training(lambda images: augment(images, generator)),
        _training(lambda images: images),
        rounds,
    )


def _training(vary: Callable[[Tensor], Tensor]) -> Callable[[], int]:
    """Return a function that trains a new network for `STEPS` steps and returns the number of images."""
    net = MultiTaskNet(**network_of("model=residual", "data.grayscale=false"))
    net = net.to(memory_format=torch.channels_last).train()
    take = training_step(net)
    images, labels = random_batch(net, BATCH)

    def steps() -> int:
        for _ in range(STEPS):
            take(vary(images).contiguous(memory_format=torch.channels_last), labels)
        return STEPS * BATCH

    return steps


def main() -> None:
    """Print the ratio in one line."""
    parser = argparse.ArgumentParser(description="Training steps with augment=strong against those without.")
    parser.add_argument("--rounds", type=int, default=5, help="number of pairs of measurements")
    print(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
