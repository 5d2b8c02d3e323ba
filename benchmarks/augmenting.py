"""What `augment=strong` costs a training of the residual network; the floor is 0.91: at most a tenth more per step.

Both sides train a network of `model=residual` in float32 on the same random bytes, 128 x 128 in RGB, batches of 64, on
all of PyTorch's threads: forward, both losses, backward, a step of fused Adam. Ours passes each batch through
`Augment` with the strengths of conf/augment/strong.yaml first; the other side doesn't. Each turn takes 4 steps. The
ratio is the time without over the time with; rates are in images per second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from agegender.data.transforms import Augment
from agegender.models.network import AgeGenderNet
from benchmarks.paired import Paired, in_turn

CONF = Path(__file__).parent.parent / "conf"
SIZE = 128
BATCH = 64
STEPS = 4  # in a turn


def measure(rounds: int = 5) -> Paired:
    """Times training steps with and without the augmentation in turn."""
    generator = torch.Generator().manual_seed(0)
    augment = Augment(**_settings("augment/strong"))
    return in_turn(
        "training with augment=strong against augment=none",
        _training(lambda images: augment(images, generator)),
        _training(lambda images: images),
        rounds,
    )


def _settings(option: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
    return dict(plain)


def _training(vary: Callable[[Tensor], Tensor]) -> Callable[[], int]:
    """Returns a function that trains a network of its own for some steps and says how many images that took."""
    network = AgeGenderNet(SIZE, 3, _settings("age/mae"), **_settings("model/residual"))
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    pixels = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)  # as the loader's
    age, gender = torch.randint(0, 100, (BATCH,)).float(), torch.randint(0, 2, (BATCH,)).float()

    def steps() -> int:
        for _ in range(STEPS):
            outputs = network(vary(pixels).contiguous(memory_format=torch.channels_last))
            loss = network.coding.loss(outputs.age, age) + network.gender_loss(outputs, gender)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS * BATCH

    return steps


def main() -> None:
    """Prints the ratio in one line."""
    parser = argparse.ArgumentParser(description="Training steps with augment=strong against those without.")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    print(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
