"""Where a training's time goes: `trainer.profiler=simple`, `advanced` or `pytorch`, all in the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

log = logging.getLogger(__name__)

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def build_profiler(name: str, folder: Path) -> Profiler:
    """Builds one of Lightning's `PROFILERS`, to write into a folder, and says where its results will be.

    `simple` times every hook and callback, `advanced` every Python function (which slows the training down), and
    `pytorch` records every operation of some steps, by Lightning's schedule, as a table and a trace.
    """
    log.info("profiling: what took how long will be in %s", folder / f"fit-{name}.txt")  # as Lightning names it
    profiler: Profiler = PROFILERS[name](folder, name)
    return profiler
