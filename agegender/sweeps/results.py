"""The end of a sweep: its tables on the terminal, `sweep.json`, the plot, and the pooled report of its folds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.errors import AgeGenderError
from agegender.evaluation.statistics.student import METHOD, Spread
from agegender.sweeps.groups import Group, final_metrics, group_jobs, numeric_setting
from agegender.sweeps.pooling import pool_folds
from agegender.sweeps.records import SWEEP_RECORD, metrics_of, read_jobs, read_record, varied_settings, write_record
from agegender.system.terminal import console


def finish_sweep(folder: Path, monitor: str, mode: str, with_report: bool) -> list[dict[str, Any]]:
    """Print and write the results of a sweep, and return the records of its jobs, best score first.

    Args:
        folder: Folder of the sweep.
        monitor: Name of the score.
        mode: `max` if a higher score is better, else `min`.
        with_report: Write the report of pooled folds.
    """
    sweep = read_record(folder / SWEEP_RECORD) or {}
    jobs, varied = read_jobs(folder, sweep["sweep"], mode), sweep["varied"]
    finished = [job for job in jobs if not job["error"]]
    metrics = {job["job"]: final_metrics(metrics_of(folder / job["folder"])) for job in finished}
    groups = group_jobs(jobs, varied, metrics, mode)
    content = {**sweep, "finished": bool(jobs) and len(finished) == len(jobs), "jobs": jobs}
    if groups:
        content |= {"interval": f"95 %, {METHOD}", "groups": [group.to_json() for group in groups]}
    write_record(folder / SWEEP_RECORD, content)
    _print_jobs(folder, jobs, varied, monitor)
    _print_groups(groups, monitor)
    _plot(folder, varied, finished, monitor)
    if any(metrics_of(folder / job["folder"]).get("data") == SYNTHETIC_NOTE for job in finished):
        print(f"trained and tested on {SYNTHETIC_NOTE}")
    pooled = pool_folds(folder, jobs, varied)
    if pooled is not None:
        print(pooled)
        if with_report:
            _report(folder)
    return jobs


def _print_jobs(folder: Path, jobs: Sequence[Mapping[str, Any]], varied: Sequence[str], monitor: str) -> None:
    from rich.table import Table

    table = Table("job", "settings", f"best {monitor}", title=f"sweep: {folder}")
    for job in jobs:
        score = "failed" if job["score"] is None else f"{job['score']:.4f}"
        table.add_row(str(job["job"]), " ".join(varied_settings(job["overrides"], varied)), score)
    console().print(table)


def _print_groups(groups: Sequence[Group], monitor: str) -> None:
    """Print a row per group, if there are several, and all metrics of the best group."""
    from rich.table import Table

    if not groups:
        return
    screen, header = console(), ("mean", "sd", "95 % interval")
    if len(groups) > 1:
        table = Table("settings", "jobs", *header, title=f"best {monitor} by settings")
        for group in groups:
            count = f"{len(group.jobs)}{f' ({len(group.failed)} failed)' if group.failed else ''}"
            table.add_row(" ".join(group.settings), count, *_cells(group.score))
        screen.print(table)
    best = groups[0]
    if best.metrics:
        title = f"{' '.join(best.settings)} " * bool(best.settings) + f"over {len(best.jobs)} jobs"
        table = Table("metric", *header, title=title)
        for name, spread in best.metrics.items():
            table.add_row(name, *_cells(spread))
        screen.print(table)
        screen.print(f"interval: {METHOD}", soft_wrap=True)


def _cells(spread: Spread | None) -> tuple[str, str, str]:
    if spread is None:
        return "failed", "", ""
    if spread.sd is None or spread.low is None or spread.high is None:
        return f"{spread.mean:.4f}", "", ""
    return f"{spread.mean:.4f}", f"{spread.sd:.4f}", f"{spread.low:.4f} to {spread.high:.4f}"


def _plot(folder: Path, varied: Sequence[str], finished: Sequence[Mapping[str, Any]], monitor: str) -> None:
    setting = numeric_setting(varied, finished)
    scored = [job for job in finished if math.isfinite(job["score"])]
    if setting is None or len(set(setting[1].values())) < 2 or not scored:
        return
    from agegender.sweeps.plot import write_plot  # imports matplotlib

    write_plot(folder / "sweep.png", *setting, scored, monitor)
    print(f"plot: {folder / 'sweep.png'}")


def _report(folder: Path) -> None:
    """Write the report of the pooled folds. The results are already written, so an error is only printed."""
    from agegender.evaluation.report.report import write_report  # imports matplotlib

    try:
        print(f"plots, tables and faces: {write_report([folder])}")
    except AgeGenderError as error:
        print(f"no report was written: {error}")
