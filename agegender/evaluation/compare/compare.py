"""Compare two runs on the same test faces: `agegender compare run=a,b`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agegender.config.overrides import paths_value
from agegender.errors import AgeGenderError, require
from agegender.system.files import atomic_write, display_path
from agegender.system.terminal import console, printable

if TYPE_CHECKING:
    from agegender.evaluation.html.metric_format import MetricColumn
    from agegender.evaluation.report.comparison import Report

_DEFAULTS = {"resamples": 2000, "seed": 0}


def compare(
    run: str | list[str] | None, out: str | None = None, common: bool = False, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Print the paired differences of two runs, B minus A, and write them as JSON.

    Args:
        run: Two runs, A and B: run folders, or folders of runs (the newest is taken).
        out: JSON file; None writes none.
        common: Compare the faces that both runs were tested on, if they were tested on different ones.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.

    Returns:
        The contents of the JSON file.

    Raises:
        AgeGenderError: Not two runs, different test faces (without `common`), a damaged file, or a file that can't be
            written.
    """
    given = [run] if isinstance(run, str) else list(run or ())
    require(len(given) == 2, f"compare is about two runs, not {len(given)}: run=a,b")
    require(out is None or not Path(out).is_dir(), f"out={out} is a folder; give a file, such as {out}/comparison.json")
    # Slow imports: `--help` and errors in the settings don't wait for them.
    from agegender.evaluation.report.comparison import build_report
    from agegender.evaluation.report.run_reader import find_runs

    settings = {"resamples": resamples, "seed": seed}
    folders = [Path(display_path(folder)) for folder in find_runs(given)]
    command = _command(folders, out, common, settings)
    report = build_report(folders, settings | {"faces": 0}, command, tested="common" if common else "same")
    require(bool(report.difference), "the runs have no task in common: report on each run by itself")
    found = _json(report, common)
    for label, each in report.runs.items():
        print(printable(f"{label}: {each.folder}"))
    _print_table(report)
    print("\n".join(map(printable, found["sentences"])))
    for warning in report.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if out is not None:
        _write(found, Path(out))
        print(printable(out))
    return found


def _command(folders: Sequence[Path], out: str | None, common: bool, settings: dict[str, int]) -> str:
    arguments = [f"run={paths_value([str(folder) for folder in folders])}"]
    arguments += [f"out={display_path(Path(out))}"] if out is not None else []
    arguments += ["common=true"] if common else []
    arguments += [f"{name}={number}" for name, number in settings.items() if number != _DEFAULTS[name]]
    return f"agegender compare {shlex.join(arguments)}"


def _columns(report: Report) -> list[tuple[MetricColumn, int]]:
    """Return the metrics that both runs have, with the number of images of their task."""
    from agegender.evaluation.html.metric_format import metric_column
    from agegender.evaluation.report.task_metrics import TaskMetrics

    columns = []
    for task in report.tasks:
        if len(known := report.of_task(task, TaskMetrics)) == 2:
            metrics = (metric for metric in known["A"].headline if metric in known["B"].headline)
            columns += [(metric_column(task, metric, interval=True), known["A"].images) for metric in metrics]
    return columns


def _print_table(report: Report) -> None:
    from dataclasses import replace

    from rich import box
    from rich.table import Table

    findings = report.findings["A"]
    photographs = f", of {findings.clusters:,} photographs" if findings.clusters < findings.images else ""
    table = Table(title=f"{findings.images:,} test faces{photographs}", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for place, name in enumerate(("", "A", "B", "B minus A", "95 % interval")):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for column, _ in _columns(report):
        values = (column.cells(report.findings[label].headline)[0] for label in ("A", "B"))
        table.add_row(column.title, *values, *replace(column, sign="+").cells(report.difference or {}))
    screen = console()
    (screen if screen.is_terminal else console(width=120)).print(table)


def _json(report: Report, common: bool) -> dict[str, Any]:
    from agegender.evaluation.compare.words import difference_sentence, mcnemar_sentence
    from agegender.evaluation.report.analysis import to_json
    from agegender.evaluation.statistics.bootstrap import CONFIDENCE

    difference, columns = report.difference or {}, _columns(report)
    sentences = [difference_sentence(column, difference[column.name], images) for column, images in columns]
    found: dict[str, Any] = to_json(
        {
            "command": report.command,
            "confidence": CONFIDENCE,
            "resamples": report.settings["resamples"],
            "seed": report.settings["seed"],
            "common": common,
            "images": report.findings["A"].images,
            "clusters": report.findings["A"].clusters,
            "runs": {
                label: {"run": run.folder.resolve().name, "split_fingerprint": run.results.get("split_fingerprint")}
                for label, run in report.runs.items()
            },
            "metrics": {
                column.name: {
                    **{label: report.findings[label].headline[column.name] for label in ("A", "B")},
                    "difference": difference[column.name],
                }
                for column, _ in columns
            },
            "mcnemar": report.mcnemar,
            "sentences": sentences + [mcnemar_sentence(task, found) for task, found in report.mcnemar.items()],
            "warnings": report.warnings,
        }
    )
    return found


def _write(found: dict[str, Any], path: Path) -> None:
    try:
        with atomic_write(path, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise AgeGenderError(f"{path} can't be written ({error.strerror}); give another file with out=...") from None
