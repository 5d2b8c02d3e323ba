"""Results of a Hydra multirun (`python train.py -m ...`): a record in every job's folder, and a table of all jobs."""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from agegender.config.overrides import as_written
from agegender.errors import EXIT_ERROR, AgeGenderError
from agegender.sweeps.records import JOB_RECORD, SWEEP_RECORD, read_jobs, read_record, write_record

log = logging.getLogger(__name__)


class SweepSummary(Callback):
    """Record every job, and print and write a table (`sweep.json`) when the multirun ends.

    Jobs may run in other processes or on other machines, so nothing is kept in memory. A failed job stops neither the
    other jobs nor the table; the command exits with an error.
    """

    def __init__(self, table: bool = True) -> None:
        """Configure the output.

        Args:
            table: Print and write the table of jobs, and continue an interrupted sweep; False for records only, as the
                study of `sweep=optuna` has its own table.
        """
        self.table, self._started = table, 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose the folder, and begin or continue its record."""
        if not self.table:
            return
        from agegender.sweeps.continuation import choose_folder, varied_keys

        try:
            varied, (monitor, mode) = varied_keys(config), _monitor(config)
            settings = choose_folder(config)
        except AgeGenderError as error:  # Hydra would turn an exception into a warning
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR) from None
        except (OSError, HydraException):
            return  # Hydra raises and reports the same error afterwards
        folder = Path(config.hydra.sweep.dir)
        before = read_record(folder / SWEEP_RECORD) or {}
        sweep = before["sweep"] if before.get("settings") == settings else uuid.uuid4().hex
        jobs = read_jobs(folder, sweep, mode)
        if sweep == before.get("sweep"):
            done = len([job for job in jobs if not job["error"]])
            print(f"continuing the sweep {folder}: {done} finished job{'s' * (done != 1)}", flush=True)
        record = {"sweep": sweep, "settings": settings, "varied": varied, "monitor": monitor, "finished": False}
        write_record(folder / SWEEP_RECORD, {**record, "jobs": jobs})

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the time."""
        self._started = time.monotonic()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record a job's overrides, and its score or error."""
        if config.hydra.mode is not RunMode.MULTIRUN:
            return
        number, overrides = config.hydra.job.num, as_written(job_return.overrides)
        sweep_folder, path = Path(config.hydra.sweep.dir), Path(config.hydra.runtime.output_dir) / JOB_RECORD
        sweep = read_record(sweep_folder / SWEEP_RECORD) if self.table else None
        record = {"sweep": sweep and sweep["sweep"], "job": number, "overrides": overrides, "settings": None}
        prepared = read_record(path) if sweep else None
        if prepared and (prepared["sweep"], prepared["job"]) == (record["sweep"], number):
            record = prepared
        if record.get("score") is None:
            record |= {"score": None, "error": None, "seconds": round(time.monotonic() - self._started, 1)}
            if job_return.status is JobStatus.COMPLETED:
                record["score"] = job_return.return_value
            else:
                record["error"] = _fail_job(number, job_return)
            write_record(path, record)
            if sweep and record["error"] is None:
                from agegender.sweeps.continuation import job_name

                name = job_name(number, record["overrides"], sweep)
                print(f"{name}: {sweep['monitor']} {record['score']:.4f} after {record['seconds']:.0f} s", flush=True)
        if sweep:
            jobs = read_jobs(sweep_folder, sweep["sweep"], _monitor(config)[1])
            write_record(sweep_folder / SWEEP_RECORD, {**sweep, "jobs": jobs})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table, best score first; exit with an error if a job failed."""
        if not self.table:
            return
        from agegender.sweeps.continuation import release_folder
        from agegender.sweeps.results import finish_sweep

        folder = Path(config.hydra.sweep.dir)
        if not (folder / SWEEP_RECORD).is_file():  # Hydra turned an exception at the start into a warning
            print(f"error: {folder / SWEEP_RECORD} is missing: there is no table of the jobs", file=sys.stderr)
            raise SystemExit(EXIT_ERROR)
        monitor, mode = _monitor(config)
        jobs = finish_sweep(folder, monitor, mode, with_report=config.test and config.report)
        release_folder(folder)
        failed = [job for job in jobs if job["error"]]
        if failed:
            first = f"job {failed[0]['job']}: {failed[0]['error']}"
            print(f"error: {len(failed)} of {len(jobs)} jobs failed; {first}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR)


def _monitor(config: DictConfig) -> tuple[str, str]:
    from agegender.tasks.monitor import find_monitor  # a slow import, made after the jobs

    tasks: Any = OmegaConf.to_container(config.tasks, resolve=True)
    return find_monitor(tasks, config.monitor)


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
