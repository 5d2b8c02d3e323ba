"""Results of a Hydra multirun (`python train.py -m ...`): a record in every job's folder, and a table of all jobs."""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from agegender.config.overrides import as_written
from agegender.errors import EXIT_ERROR, AgeGenderError
from agegender.system.files import atomic_write
from agegender.system.terminal import console

log = logging.getLogger(__name__)

JOB_RECORD = "job.json"  # in a job's folder: overrides, and score or error


class SweepSummary(Callback):
    """Record every job, and print and write a table (`sweep.json`) when the multirun ends.

    Jobs may run in other processes or on other machines, so nothing is kept in memory. A failed job stops neither the
    other jobs nor the table; the command exits with an error.
    """

    def __init__(self, table: bool = True) -> None:
        """Configure the output.

        Args:
            table: Print and write the table of jobs; False for records only, as the study of `sweep=optuna` has its own
                table.
        """
        self.table, self._sweep_id = table, ""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set this multirun's ID, which its jobs record: the folder may contain records of earlier multiruns."""
        self._sweep_id = uuid.uuid4().hex

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a job's overrides, and its score or error."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        number, overrides = config.hydra.job.num, as_written(job_return.overrides)
        record = {"sweep": self._sweep_id, "job": number, "overrides": overrides, "score": None, "error": None}
        if job_return.status is JobStatus.COMPLETED:
            record["score"] = job_return.return_value
        else:
            record["error"] = _fail_job(number, job_return)
        _write(Path(config.hydra.runtime.output_dir) / JOB_RECORD, record)
        if self.table:
            self._write_table(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table, best score first; exit with an error if a job failed."""
        if not self.table:
            return
        from rich.table import Table

        jobs = self._write_table(config)
        table = Table("job", "settings", f"best {_monitor(config)[0]}", title=f"sweep: {config.hydra.sweep.dir}")
        shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            settings = " ".join(item for item in job["overrides"] if item not in shared)
            score = "failed" if job["score"] is None else f"{job['score']:.4f}"
            table.add_row(str(job["job"]), settings, score)
        console().print(table)
        failed = [job for job in jobs if job["error"]]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['error']}"
            print(f"error: {len(failed)} of {len(jobs)} jobs failed; {first}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR)

    def _write_table(self, config: DictConfig) -> list[dict[str, Any]]:
        """Write and return the records of the finished jobs, best first and failed ones last."""
        folder = Path(config.hydra.sweep.dir)
        records = [read_record(path) for path in folder.rglob(JOB_RECORD)]
        jobs = [record for record in records if record and record.pop("sweep", None) == self._sweep_id]
        monitor, mode = _monitor(config)
        sign = -1 if mode == "max" else 1
        jobs.sort(key=lambda job: (math.inf if job["score"] is None else sign * job["score"], job["job"]))
        _write(folder / "sweep.json", {"monitor": monitor, "jobs": jobs})
        return jobs


def _monitor(config: DictConfig) -> tuple[str, str]:
    from agegender.tasks.monitor import find_monitor  # a slow import, made after the jobs

    tasks: Any = OmegaConf.to_container(config.tasks, resolve=True)
    return find_monitor(tasks, config.monitor)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a job; None if the job didn't finish."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def _fail_job(number: int, job_return: JobReturn) -> str:
    """Log a job's error, mark the job as completed for Hydra, and return the message in one line."""
    error = job_return._return_value
    text = " ".join(str(error).split())
    if not isinstance(error, AgeGenderError):  # a bug or a system fault: print the traceback
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text}"
    log.error("job %s failed: %s", number, text)
    # Otherwise Hydra raises the error before the table is printed; how depends on the launcher and the sweeper.
    job_return.return_value, job_return.status = math.nan, JobStatus.COMPLETED
    return text


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
