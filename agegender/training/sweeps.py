"""What a Hydra multirun (`python train.py -m ...`) found: a table of its jobs, best first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig


class SweepTable(Callback):
    """Prints the jobs with their scores when a multirun ends, and leaves them in its folder as `sweep.json`."""

    def __init__(self) -> None:
        """Starts with no job."""
        self._jobs: list[dict[str, Any]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keeps a job's overrides and score."""
        if config.hydra.mode is RunMode.MULTIRUN and job_return.status is JobStatus.COMPLETED:
            overrides = list(job_return.overrides or [])
            self._jobs.append({"job": len(self._jobs), "overrides": overrides, "score": job_return.return_value})
            self._write(config)  # after every job: a later one that fails ends the sweep, but takes nothing away

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints and writes the table; the best score stands first."""
        from rich.console import Console
        from rich.table import Table

        table = Table("job", "settings", f"best {config.monitor}", title=f"sweep: {config.hydra.sweep.dir}")
        for job in self._ranked(config):
            table.add_row(str(job["job"]), " ".join(job["overrides"]), f"{job['score']:.4f}")
        Console().print(table)

    def _ranked(self, config: DictConfig) -> list[dict[str, Any]]:
        return sorted(self._jobs, key=lambda job: job["score"], reverse=config.mode == "max")

    def _write(self, config: DictConfig) -> None:
        table = {"monitor": config.monitor, "jobs": self._ranked(config)}
        (Path(config.hydra.sweep.dir) / "sweep.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
