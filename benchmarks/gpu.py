"""Training speed on one NVIDIA GPU: duration of `gray_mae`, and the residual network against hardware limits.

1. `python train.py experiment=gray_mae trainer=mixed trainer.accelerator=gpu`, all 30 epochs, from its `metrics.json`.
   Goal: under 30 s.
2. Training steps of the residual network in bfloat16, on pixels in GPU memory, against the slower of two lower bounds:
   its FLOPs at the measured matrix-multiply rate, and its activations at the measured copy rate. Goal: 2x.
3. Absence of GPU synchronization in a step (PyTorch's sync debug mode raises an error otherwise).

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

from agegender.models.network import MultiTaskNet
from benchmarks.bare import CONF, network_of, random_batch, training_step


def classic_training(folder: Path | None) -> dict[str, float]:
    """Return the metrics of a whole `gray_mae` run on the GPU."""
    with tempfile.TemporaryDirectory() as run:
        data = f"data.dir={folder}" if folder else "data=synthetic"
        chosen = ["experiment=gray_mae", "trainer=mixed", "trainer.accelerator=gpu", data, f"hydra.run.dir={run}"]
        subprocess.run([sys.executable, "train.py", *chosen], check=True, cwd=CONF.parent, stdout=sys.stderr)
        metrics: dict[str, float] = json.loads((Path(run) / "metrics.json").read_text())
    return metrics


def seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """Return the mean duration of GPU work in seconds, after a warm-up."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def multiply_rate() -> float:
    """Return the GPU's bfloat16 matrix-multiply rate, in operations per second."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds_of(lambda: a @ b)


def copy_rate() -> float:
    """Return the GPU's memory bandwidth, in bytes read plus bytes written per second."""
    data = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    other = torch.empty_like(data)
    return 2 * data.nbytes / seconds_of(lambda: other.copy_(data))


def residual_step(batch: int) -> tuple[Callable[[], None], MultiTaskNet, Tensor]:
    """Return a training step of the residual network in bfloat16, the network, and its batch of images."""
    net = MultiTaskNet(**network_of("model=residual", "data.grayscale=false"))
    net = net.cuda().to(memory_format=torch.channels_last).train()
    images, labels = random_batch(net, batch, "cuda")
    take = training_step(net, bf16=True)
    return lambda: take(images, labels), net, images


def activation_bytes(net: MultiTaskNet, images: Tensor) -> int:
    """Return the minimum memory traffic of a step in bytes: inputs and outputs of all convolutions, both passes."""
    moved = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        # three accesses of two bytes each: one in the forward pass, a read and a gradient's write in the backward pass
        moved += 2 * 3 * (inputs[0].numel() + output.numel())

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    return moved


def main() -> None:
    """Print the measurements, or exit with an error without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of UTKFace; synthetic faces without it")
    parser.add_argument("--batch", type=int, default=256, help="batch size of the residual network")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"error: PyTorch {torch.__version__} finds no NVIDIA GPU; run this on a machine that has one")
    print(torch.cuda.get_device_name())

    step, net, images = residual_step(chosen.batch)
    step()  # the optimizer's first step creates its state
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    print("a step does not synchronize with the GPU")
    with FlopCounterMode(display=False) as counter:
        step()
    arithmetic = counter.get_total_flops() / multiply_rate()
    memory = activation_bytes(net, images) / copy_rate()
    taken = seconds_of(step)
    floor = max(arithmetic, memory)
    print(
        f"residual: {chosen.batch / taken:,.0f} images/s; limits: {chosen.batch / arithmetic:,.0f} by arithmetic, ",
        end="",
    )
    print(f"{chosen.batch / memory:,.0f} by memory; {taken / floor:.2f}x the time at the lower limit (goal 2)")

    metrics = classic_training(chosen.data)
    accuracy = f"{metrics['test/age_mae']:.2f} years, {100 * metrics['test/gender_acc']:.2f} %"
    print(f"gray_mae: {metrics['train_seconds']:.1f} s of training (goal 30), test {accuracy}")


if __name__ == "__main__":
    main()
