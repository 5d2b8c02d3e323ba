"""A training step of the residual network against the card's limits in arithmetic and memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from agegender.models.network import MultiTaskNet
from benchmarks.bare import network_of, random_batch, training_step
from benchmarks.gpu.figures import Recorder
from benchmarks.gpu.runner import Setup


def floors(setup: Setup, record: Recorder) -> None:
    """Compare a bfloat16 step with the slower of two lower bounds.

    They are its FLOPs at the measured matrix-multiply rate, and its activations at the measured copy rate.
    """
    batch, size = (16, 512) if setup.faces else (256, 8192)
    step, net, images = _residual_step(batch, setup.device)
    step()  # the optimizer's first step creates its state
    with FlopCounterMode(display=False) as counter:
        step()
    multiplied, copied = _multiply_rate(size, setup.device), _copy_rate(size * size, setup.device)
    record("matrix products, bfloat16", round(multiplied / 1e12, 2), "TFLOP/s")
    record("memory, read and written", round(copied / 1e9, 1), "GB/s")
    arithmetic, memory = counter.get_total_flops() / multiplied, _activation_bytes(net, images) / copied
    taken = _seconds_of(step, setup.device)
    record("residual network: images per second", round(batch / taken))
    record("images per second that the arithmetic allows", round(batch / arithmetic))
    record("images per second that the memory allows", round(batch / memory))
    record("time of a step over its lower bound", round(taken / max(arithmetic, memory), 2), goal=2)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds_of(work: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Return the mean duration of work in seconds, after a warm-up."""
    repeats = repeats if device == "cuda" else 2
    for _ in range(3 if device == "cuda" else 1):
        work()
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _synchronize(device)
    return (time.perf_counter() - start) / repeats


def _multiply_rate(size: int, device: str) -> float:
    """Return the bfloat16 matrix-multiply rate in operations per second."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _seconds_of(lambda: a @ b, device)


def _copy_rate(size: int, device: str) -> float:
    """Return the memory bandwidth in bytes read plus bytes written per second."""
    data = torch.empty(16 * size, device=device, dtype=torch.uint8)
    other = torch.empty_like(data)
    return 2 * data.nbytes / _seconds_of(lambda: other.copy_(data), device)


def _residual_step(batch: int, device: str) -> tuple[Callable[[], None], MultiTaskNet, Tensor]:
    """Return a training step of the residual network in bfloat16, the network, and its batch of images."""
    net = MultiTaskNet(**network_of("model=residual", "data.grayscale=false"))
    net = net.to(device).to(memory_format=torch.channels_last).train()
    images, labels = random_batch(net, batch, device)
    take = training_step(net, bf16=True)
    return lambda: take(images, labels), net, images


def _activation_bytes(net: MultiTaskNet, images: Tensor) -> int:
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
