"""What a Hydra multirun (`python train.py -m ...`) found: a table of its jobs, best first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Prints the jobs with their scores when a multirun ends, and leaves them in its folder as `sweep.json`."""

    def __init__(self) -> None:
        """Starts with no job."""
        self._jobs: list[dict[str, Any]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keeps a job's overrides and score."""
        if job_return.status is JobStatus.COMPLETED:
            overrides = list(job_return.overrides or [])
            self._jobs.append({"job": len(self._jobs), "overrides": overrides, "score": job_return.return_value})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints and writes the table; the best score stands first."""
        from rich.console import Console
        from rich.table import Table

        jobs = sorted(self._jobs, key=lambda job: job["score"], reverse=config.mode == "max")
        folder = Path(config.hydra.sweep.dir)
        (folder / "sweep.json").write_text(json.dumps({"monitor": config.monitor, "jobs": jobs}, indent=2) + "\n")
        table = Table("job", "settings", f"best {config.monitor}", title=f"sweep: {folder}")
        for job in jobs:
            table.add_row(str(job["job"]), " ".join(job["overrides"]), f"{job['score']:.4f}")
        Console().print(table)
