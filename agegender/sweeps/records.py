"""Files of a sweep: `sweep.json` in its folder, and `job.json` in the folder of each job."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agegender.system.files import atomic_write

SWEEP_RECORD = "sweep.json"
JOB_RECORD = "job.json"  # overrides, and score or error


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the content of a record; None if there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write a record atomically."""
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_jobs(folder: Path, sweep: str, mode: str) -> list[dict[str, Any]]:
    """Return the records of a sweep's ended jobs with their folders, best score first and failed jobs last.

    Args:
        folder: Folder of the sweep.
        sweep: ID of the sweep: the folder may contain records of other ones.
        mode: `max` if a higher score is better, else `min`.
    """
    jobs = []
    for path in folder.rglob(JOB_RECORD):
        record = read_record(path)
        if record and record.pop("sweep", None) == sweep and (record["score"] is not None or record["error"]):
            jobs.append({"folder": str(path.parent.relative_to(folder)), **record})
    sign = -1 if mode == "max" else 1
    return sorted(jobs, key=lambda job: (math.inf if job["score"] is None else sign * job["score"], job["job"]))


def metrics_of(run: Path) -> dict[str, Any]:
    """Return a run's `metrics.json`; empty if it has none."""
    return read_record(run / "metrics.json") or {}


def setting_key(override: str) -> str:
    """Return the key of an override such as `+data.fold=2`."""
    return override.partition("=")[0].lstrip("+~")


def varied_settings(overrides: Sequence[str], varied: Sequence[str]) -> list[str]:
    """Return the overrides of a job that vary within its sweep, in the order of `varied`."""
    chosen = {setting_key(item): item for item in overrides}
    return [chosen[key] for key in varied if key in chosen]
