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
from agegender.models.trunks.onednn import supports_dtype
from agegender.system.malloc import disable_malloc_trim

STEPS, WARM_UP = 12, 2
SIDES = ((128, 1), (200, 3))  # of the images, and their channels


def measure(side: int, channels: int, dtype: torch.dtype) -> list[float]:
    """Return the CPU seconds of a training step in PyTorch's layout, and in oneDNN's if it has the precision."""
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

    layouts = (False, True) if supports_dtype(dtype) else (False,)
    steps = [[step(in_layout) for in_layout in layouts] for _ in range(STEPS)][WARM_UP:]
    return [statistics.median(seconds) for seconds in zip(*steps, strict=True)]


def main() -> None:
    """Print one line per malloc setting, image size and precision."""
    torch.set_num_threads(1)
    for kept in (False, True):
        if kept and not disable_malloc_trim():
            print("memory kept: this platform's malloc has no such setting")
            return
        for side, channels in SIDES:
            for dtype in (torch.float32, torch.bfloat16):
                pytorch, *onednn = measure(side, channels, dtype)
                compared = "".join(f", {each:.3f} s in oneDNN's, ratio {pytorch / each:.2f}" for each in onednn)
                print(
                    f"memory {'kept' if kept else 'returned'}, {side} pixels, {str(dtype).removeprefix('torch.')}: "
                    f"{pytorch:.3f} s in PyTorch's layout{compared}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
