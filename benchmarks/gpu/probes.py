"""Callbacks that the steps add to `train.py`, to observe its training from inside."""

from __future__ import annotations

import json
import time
import traceback
import warnings
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

SYNCHRONIZING = ".*called a synchronizing CUDA operation.*"


class MemoryProbe(Callback):
    """Write the peak of the GPU memory that PyTorch allocated, in bytes, when the training ends."""

    def __init__(self, path: str) -> None:
        """Initialize with the path of the JSON file."""
        self.path = Path(path)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the peak."""
        peak = torch.cuda.max_memory_allocated() if pl_module.device.type == "cuda" else 0
        self.path.write_text(json.dumps({"peak": peak}))


class SyncProbe(Callback):
    """Count the operations that wait for the GPU, in the batches of training and validation after the first epoch.

    PyTorch's sync debug mode warns of each; the place in the source is recorded with it. Writes a JSON file with the
    number of batches and of waits by place, for each stage.
    """

    def __init__(self, path: str) -> None:
        """Initialize with the path of the JSON file."""
        self.path = Path(path)
        self.batches: Counter[str] = Counter()
        self.waits: dict[str, Counter[str]] = {"train": Counter(), "val": Counter()}
        self._batch = ExitStack()

    def _start(self, trainer: pl.Trainer, stage: str) -> None:
        if trainer.current_epoch == 0:
            return
        self.batches[stage] += 1
        if trainer.strategy.root_device.type != "cuda":
            return
        self._batch.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("always", SYNCHRONIZING)
        warnings.showwarning = lambda message, *_, **__: self._count(stage, str(message))
        torch.cuda.set_sync_debug_mode("warn")

    def _count(self, stage: str, message: str) -> None:
        if "synchronizing CUDA operation" in message:
            calls = [frame for frame in traceback.extract_stack() if "warnings" not in frame.filename]
            self.waits[stage][" < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(calls[-6:-2]))] += 1

    def _end(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        self._batch.close()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start to count."""
        self._start(trainer, "train")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop to count."""
        self._end()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Start to count."""
        self._start(trainer, "val")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop to count."""
        self._end()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the counts."""
        found = {stage: dict(waits.most_common()) for stage, waits in self.waits.items()}
        self.path.write_text(json.dumps({"batches": self.batches, "waits": found}, indent=2))


class KernelProbe(Callback):
    """Profile some steps of the second epoch: the fraction of the time in which the GPU computes, and its kernels."""

    def __init__(self, path: str, steps: int = 20) -> None:
        """Initialize.

        Args:
            path: Path of the text file with the kernels; the JSON file beside it has the fraction.
            steps: Number of profiled steps.
        """
        self.path, self.steps = Path(path), steps
        self._profile: profile | None = None
        self._start, self._first = 0.0, 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the profiler."""
        self._first = 5 if int(trainer.num_training_batches) > 6 else 0
        if trainer.current_epoch == 1 and batch_idx == self._first:
            on_gpu = [ProfilerActivity.CUDA] if pl_module.device.type == "cuda" else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *on_gpu])
            self._profile.start()
            self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the profiler, and write what it saw."""
        last = min(self._first + self.steps, int(trainer.num_training_batches)) - 1
        if self._profile is None or batch_idx != last:
            return
        on_gpu = pl_module.device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - self._start
        self._profile.stop()
        averages = self._profile.key_averages()
        name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        # On a GPU the kernels only: the operations that launched them have the same times.
        on_device = [event for event in averages if str(event.device_type).endswith("CUDA" if on_gpu else "CPU")]
        busy = sum(getattr(event, name) for event in on_device)
        kernels = sum(event.count for event in on_device)
        steps = batch_idx + 1 - self._first
        self.path.write_text(averages.table(sort_by=name, row_limit=40))
        measured = {"busy": busy / 1e6 / elapsed, "milliseconds": 1e3 * elapsed / steps, "kernels": kernels / steps}
        self.path.with_suffix(".json").write_text(json.dumps(measured))
        self._profile = None
