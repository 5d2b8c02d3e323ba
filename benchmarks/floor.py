"""Upper bound of the training speed on this CPU, for any framework, and a profile of the training step.

The bound is the machine's measured matrix-multiply rate divided by the FLOPs of training on an image (convolutions and
dense layers, forward and backward, by PyTorch's FLOP counter). `python -m benchmarks.floor [--networks gray_mae]`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from agegender.models.network import MultiTaskNet
from agegender.system.malloc import disable_malloc_trim
from benchmarks.bare import network_of, random_batch, settings_of, total_loss, training_step

SIDE = 4096  # rows and columns of the matrices
NETWORKS = "gray_mae,rgb200_mse,he_mse"
PARTS = {  # substring of an operation's name -> part of the step; the first match counts
    "convolution_backward": "convolutions, backward",
    "convolution": "convolutions, forward",
    "max_pool": "max-pooling, both passes",
    "mm": "dense layers",
    "linear": "dense layers",
    "bernoulli": "dropout's random numbers",
    "dropout": "dropout's random numbers",
    "adam": "Adam",
}
REST = "ReLU, casts, copies, the rest"


def multiply_rate(dtype: torch.dtype, repeats: int = 5) -> float:
    """Return the operations per second of a product of two large matrices on all cores."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    torch.mm(a, b)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / statistics.median(times)


def training_operations(network: dict[str, object]) -> int:
    """Return the number of multiplications and additions of a training step per image."""
    net = MultiTaskNet(**network).train()  # type: ignore[arg-type]
    images, labels = random_batch(net, 2)
    # The counter misses operations in oneDNN's layout; anomaly detection disables that layout (see ConvStack).
    with torch.autograd.set_detect_anomaly(True, check_nan=False), FlopCounterMode(display=False) as counter:
        total_loss(net, images, labels).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops()) // 2


def shares(network: dict[str, object], batch_size: int, bf16: bool, steps: int = 10) -> dict[str, float]:
    """Return the fraction of a bare training step's time by part of the step, the largest first."""
    net = MultiTaskNet(**network).to(memory_format=torch.channels_last).train()  # type: ignore[arg-type]
    batch, step = random_batch(net, batch_size), training_step(net, bf16=bf16)
    for _ in range(3):
        step(*batch)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(steps):
            step(*batch)
    taken: Counter[str] = Counter()
    for operation in recorded.key_averages():
        name = operation.key.lower()
        part = next((part for held, part in PARTS.items() if held in name), REST)
        taken[part] += operation.self_cpu_time_total
    return {part: time / taken.total() for part, time in taken.most_common()}


def main() -> None:
    """Print the machine's rates, and each network's upper bound and step profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS, help="a subset of %(default)s")
    chosen = parser.parse_args()
    disable_malloc_trim()  # as train.py does
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's own messages
    rates = {"float32": multiply_rate(torch.float32), "bfloat16": multiply_rate(torch.bfloat16)}
    for precision, rate in rates.items():
        print(f"{precision}: {rate / 1e9:.0f} GFLOP/s in a product of two matrices of {SIDE} x {SIDE}")
    for name in chosen.networks.split(","):
        network = network_of(f"experiment={name}")
        cost = training_operations(network)
        limits = " and ".join(f"{rate / cost:.0f} in {precision}" for precision, rate in rates.items())
        print(f"{name}: {cost / 1e9:.2f} GFLOP to train on an image; at most {limits} per second")
        batch_size = settings_of(f"experiment={name}")["data"]["batch_size"]
        for precision in rates:
            parts = shares(network, batch_size, precision == "bfloat16").items()
            print(f"  {precision}: {', '.join(f'{part} {share:.0%}' for part, share in parts)}", flush=True)


if __name__ == "__main__":
    main()
