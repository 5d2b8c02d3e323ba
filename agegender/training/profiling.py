"""Lightning's profilers, `trainer.profiler=simple`, `advanced` or `pytorch`, with output in the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

log = logging.getLogger(__name__)

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def build_profiler(name: str, folder: Path) -> Profiler:
    """Build one of Lightning's `PROFILERS` that writes to a folder, and log the output path.

    `simple` times every hook and callback, `advanced` every Python function (which slows the training down), and
    `pytorch` records every operation of some steps, by Lightning's schedule, as a table and a trace.
    """
    log.info("profiling: the results will be in %s", folder / f"fit-{name}.txt")  # Lightning's name
    profiler: Profiler = PROFILERS[name](folder, name)
    return profiler
