"""On one NVIDIA GPU: how long `gray_mae` trains, and how near the residual trunk comes to the card's floors.

1. `python train.py experiment=gray_mae trainer=mixed trainer.accelerator=gpu`, all 30 epochs, its `metrics.json` read.
   Goal: under 30 s.
2. Training steps of the residual network in bfloat16, on pixels that lie on the GPU, against the slower of two floors:
   its arithmetic at the card's own matrix-multiply rate, and its activations at the card's own copying rate. Goal: 2x.
3. Whether anything in a step waits for the GPU (PyTorch's own check raises an error if so).

`python -m benchmarks.gpu [--data data/UTKFace] [--batch 256]`. Written without a GPU at hand, and never run on one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from agegender.models.network import AgeGenderNet
from benchmarks.bare import CONF, network_of, random_batch, training_step


def classic_training(folder: Path | None) -> dict[str, float]:
    """Return the figures of a whole `gray_mae` run on the GPU."""
    with tempfile.TemporaryDirectory() as run:
        data = f"data.dir={folder}" if folder else "data=synthetic"
        chosen = ["experiment=gray_mae", "trainer=mixed", "trainer.accelerator=gpu", data, f"hydra.run.dir={run}"]
        subprocess.run([sys.executable, "train.py", *chosen], check=True, cwd=CONF.parent, stdout=sys.stderr)
        figures: dict[str, float] = json.loads((Path(run) / "metrics.json").read_text())
    return figures


def seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """Return the mean time of some work on the GPU, after a warm-up."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def multiply_rate() -> float:
    """Return the card's bfloat16 matrix-multiply rate, in operations per second."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds_of(lambda: a @ b)


def copy_rate() -> float:
    """Return the card's memory rate, in bytes read plus bytes written per second."""
    data = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    other = torch.empty_like(data)
    return 2 * data.nbytes / seconds_of(lambda: other.copy_(data))


def residual_step(batch: int) -> tuple[Callable[[], None], AgeGenderNet, Tensor]:
    """Return a training step of the residual network in bfloat16, the network, and the images that it trains on."""
    net = AgeGenderNet(**network_of("model=residual", "data.grayscale=false"))
    net = net.cuda().to(memory_format=torch.channels_last).train()
    images, ages, genders = random_batch(net, batch, "cuda")
    take = training_step(net, bf16=True)
    return lambda: take(images, ages, genders), net, images


def activation_bytes(net: AgeGenderNet, images: Tensor) -> int:
    """Return what a step must move at the least: each convolution's input and output, in bfloat16, forth and back."""
    moved = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        # written once and read once on the way forth; on the way back both are read, and their gradients are written
        moved += 2 * 3 * (inputs[0].numel() + output.numel())

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return moved


def main() -> None:
    """Print the figures, or why there are none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of UTKFace; without it, faces are drawn")
    parser.add_argument("--batch", type=int, default=256, help="batch of the residual network")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"error: PyTorch {torch.__version__} sees no NVIDIA GPU here; run this on a machine that has one")
    print(torch.cuda.get_device_name())

    step, net, images = residual_step(chosen.batch)
    step()  # the optimiser's first step makes its state
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    print("a step never waits for the GPU")
    with FlopCounterMode(display=False) as counter:
        step()
    arithmetic = counter.get_total_flops() / multiply_rate()
    memory = activation_bytes(net, images) / copy_rate()
    taken = seconds_of(step)
    floor = max(arithmetic, memory)
    print(
        f"residual: {chosen.batch / taken:,.0f} images/s; floors: {chosen.batch / arithmetic:,.0f} by arithmetic, ",
        end="",
    )
    print(f"{chosen.batch / memory:,.0f} by memory; {taken / floor:.2f}x the slower one's time (goal 2)")

    figures = classic_training(chosen.data)
    accuracy = f"{figures['test/age_mae']:.2f} years, {100 * figures['test/gender_acc']:.2f} %"
    print(f"gray_mae: {figures['train_seconds']:.1f} s of training (goal 30), test {accuracy}")


if __name__ == "__main__":
    main()
