"""Where a training's time goes: `trainer.profiler=simple`, `advanced` or `pytorch`, all in the run's folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler
from torch.profiler import profile, record_function, schedule

log = logging.getLogger(__name__)

PROFILERS = ("simple", "advanced", "pytorch")
LEFT_OUT, RECORDED = 5, 10  # steps: the first few take longer than those that follow, and ten make a trace of some MB


def build_profiler(name: str, folder: Path) -> Profiler:
    """Builds one of `PROFILERS`, to write into a folder, and says where its results will be.

    `simple` times every hook and callback, `advanced` every Python function (which slows the training down), and
    `pytorch` records every operation of some training steps.
    """
    if name == "pytorch":
        return StepTrace(folder)
    log.info("profiling: what took how long will be in %s", folder / f"fit-{name}.txt")  # as Lightning names it
    return (SimpleProfiler if name == "simple" else AdvancedProfiler)(folder, name)


class StepTrace(Profiler):
    """Records ten training steps with PyTorch's profiler: a trace to look at, and a table by operation.

    Lightning's PyTorchProfiler shares one schedule between training and validation, and PyTorch refuses that where an
    epoch ends within it. Here only training steps count; what happens between two of them is in the trace all the same.
    """

    TRACE = "training_steps.pt.trace.json"  # TensorBoard's plugin goes by the suffix
    TABLE = "operations.txt"

    def __init__(self, folder: Path):
        """Says where to."""
        super().__init__(dirpath=folder)
        self.folder = folder
        self._profile: profile | None = None
        self._open: dict[str, record_function] = {}

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """Begins, if this is a training."""
        super().setup(stage, local_rank, log_dir)
        if stage == "fit":
            # Kineto, which PyTorch records with, tells of itself, and of an error where there is no GPU.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
            steps = schedule(wait=LEFT_OUT - 2, warmup=2, active=RECORDED, repeat=1)
            self._profile = profile(schedule=steps, record_shapes=True, on_trace_ready=self._write)
            self._profile.start()

    def start(self, action_name: str) -> None:
        """Opens a span of the trace."""
        if self._profile is not None:
            self._open[action_name] = record_function(action_name)
            self._open[action_name].__enter__()  # type: ignore[no-untyped-call]

    def stop(self, action_name: str) -> None:
        """Closes a span; the end of a training step moves the schedule on."""
        if action_name in self._open:
            self._open.pop(action_name).__exit__(None, None, None)
        if self._profile is not None and action_name == "run_training_batch":
            self._profile.step()
            if self._profile.step_num >= LEFT_OUT + RECORDED:
                self._end()

    def teardown(self, stage: str | None) -> None:
        """Ends the recording of a training that had fewer steps."""
        if self._profile is not None:
            begun = self._profile.step_num > LEFT_OUT
            self._end()
            if not begun:
                log.warning("nothing was profiled: the training ended before its step %d", LEFT_OUT + 1)
        super().teardown(stage)

    def __del__(self) -> None:
        """Nothing: where a training breaks off, Lightning's own would end the recording as the interpreter goes."""

    def _end(self) -> None:
        ended, self._profile = self._profile, None
        assert ended is not None
        ended.stop()

    def _write(self, recorded: profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(self.folder / self.TRACE))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        table = recorded.key_averages().table(f"self_{device}_time_total", row_limit=50)
        (self.folder / self.TABLE).write_text(table, encoding="utf-8")
        log.info(
            "profiled training steps %d to %d: open %s in https://ui.perfetto.dev or chrome://tracing",
            *(LEFT_OUT + 1, recorded.step_num, self.folder / self.TRACE),
        )
        log.info("profiled by operation: %s", self.folder / self.TABLE)
