"""What a Hydra multirun (`python train.py -m ...`) found: a record in every job's folder, a table of them all."""

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
from omegaconf import DictConfig

from agegender.errors import EXIT_ERROR, AgeGenderError
from agegender.files import write_whole
from agegender.overrides import as_written

log = logging.getLogger(__name__)

RECORD = "job.json"  # in a job's folder: its overrides, and its score or what went wrong


class SweepTable(Callback):
    """Keeps a record of every job, prints a table when the multirun ends, and leaves it in its folder as `sweep.json`.

    A job may run in a process of its own, on another machine even: nothing is kept in memory. A job that fails ends
    neither the others nor the table; the command then ends with an error.
    """

    def __init__(self, table: bool = True) -> None:
        """Says whether there is a table, or records only: the study of `sweep=optuna` has a table of its own.

        Args:
            table: Print and write the table of this multirun's jobs.
        """
        self.table, self._sweep = table, ""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Names this multirun: its folder may hold the records of an older one. The name goes along to every job."""
        self._sweep = uuid.uuid4().hex

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Keeps a job's overrides and score, or its error: one that fails takes nothing away from the others."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        number, overrides = config.hydra.job.num, as_written(job_return.overrides)
        record = {"sweep": self._sweep, "job": number, "overrides": overrides, "score": None, "error": None}
        if job_return.status is JobStatus.COMPLETED:
            record["score"] = job_return.return_value
        else:
            record["error"] = _failure(number, job_return)
        _write(Path(config.hydra.runtime.output_dir) / RECORD, record)
        if self.table:
            self._write_table(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints and writes the table; the best score stands first. Ends the command with an error if a job failed."""
        if not self.table:
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        jobs = self._write_table(config)
        table = Table("job", "settings", f"best {config.monitor}", title=f"sweep: {config.hydra.sweep.dir}")
        shared = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            settings = " ".join(item for item in job["overrides"] if item not in shared)
            found = "failed" if job["score"] is None else f"{job['score']:.4f}"
            table.add_row(str(job["job"]), escape(settings), found)  # a list of paths reads like a tag
        Console().print(table)
        failed = [job for job in jobs if job["error"]]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['error']}"
            print(f"error: {len(failed)} of {len(jobs)} jobs failed; {first}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR)

    def _write_table(self, config: DictConfig) -> list[dict[str, Any]]:
        """Writes the jobs that have ended so far, ranked, failed ones last, and returns them."""
        folder = Path(config.hydra.sweep.dir)
        records = [read_record(path) for path in folder.rglob(RECORD)]
        jobs = [record for record in records if record and record.pop("sweep", None) == self._sweep]
        sign = -1 if config.mode == "max" else 1
        jobs.sort(key=lambda job: (math.inf if job["score"] is None else sign * job["score"], job["job"]))
        _write(folder / "sweep.json", {"monitor": config.monitor, "jobs": jobs})
        return jobs


def read_record(path: Path) -> dict[str, Any] | None:
    """Returns what `SweepTable` wrote when a job ended; None if it didn't come to its end."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def _failure(number: int, job_return: JobReturn) -> str:
    """Says at once what went wrong, in one line, and has Hydra take the job for one that ended."""
    error = job_return._return_value
    text = " ".join(str(error).split())
    if not isinstance(error, AgeGenderError):  # a bug, or a fault of the machine: the traceback says where
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text}"
    log.error("job %s failed: %s", number, text)
    # Hydra would pass the error on before the table is printed, and every launcher and sweeper has its own way to.
    job_return.return_value, job_return.status = math.nan, JobStatus.COMPLETED
    return text


def _write(path: Path, content: dict[str, Any]) -> None:
    with write_whole(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
