"""What oneDNN's layout and a malloc that keeps freed memory are worth to a CPU training step.

`python -m benchmarks.cpu_step` alternates training steps of the default network (one thread, batches of 64) with and
without oneDNN's layout, first with glibc's default malloc, then with memory kept. Times are medians of CPU seconds, so
other processes matter little.
"""

from __future__ import annotations

import statistics
import time
from unittest.mock import patch

import torch
from torch import nn

from agegender.models.trunks import conv_stack
from agegender.system.malloc import disable_malloc_trim

STEPS, WARM_UP = 12, 2
SIDES = ((128, 1), (200, 3))  # of the images, and their channels


def measure(side: int, channels: int, dtype: torch.dtype) -> tuple[float, float]:
    """Return the CPU seconds of a training step with oneDNN's layout and without it."""
    trunk = conv_stack.ConvStack(channels, side)
    head = nn.Linear(trunk.num_features, 1)
    images = torch.randn(64, channels, side, side).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], 1e-4, fused=True)

    def step(in_layout: bool) -> float:
        start = time.process_time()
        layout = patch.object(conv_stack, "can_train_in_onednn_layout", return_value=in_layout)
        with layout, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = head(trunk(images)).float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.process_time() - start

    pairs = [(step(True), step(False)) for _ in range(STEPS)][WARM_UP:]
    with_layout, without = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return with_layout, without


def main() -> None:
    """Print one line per malloc setting, image size and precision."""
    torch.set_num_threads(1)
    for kept in (False, True):
        if kept and not disable_malloc_trim():
            print("memory kept: this platform's malloc has no such setting")
            return
        for side, channels in SIDES:
            for dtype in (torch.float32, torch.bfloat16):
                with_layout, without = measure(side, channels, dtype)
                print(
                    f"memory {'kept' if kept else 'returned'}, {side} pixels, {str(dtype).removeprefix('torch.')}: "
                    f"{with_layout:.3f} s in oneDNN's layout, {without:.3f} s in PyTorch's, ratio "
                    f"{without / with_layout:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
