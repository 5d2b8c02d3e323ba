"""Report a trained model's metrics on its test images as a page: `agegender report run=logs/...`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agegender.config.overrides import paths_value
from agegender.system.files import display_path

if TYPE_CHECKING:
    from agegender.evaluation.report.comparison import Report

_DEFAULTS = {"resamples": 2000, "faces": 24, "seed": 0}
_THRESHOLDS = (13, 16, 18, 21, 25, 30)  # years


def report_command(
    runs: Sequence[Path],
    out: Path | None,
    settings: dict[str, int],
    thresholds: Sequence[int] = _THRESHOLDS,
    explain: bool = False,
) -> str:
    """Return the shell command that makes a report; settings at their defaults are left out."""
    arguments = [
        f"run={paths_value([display_path(run) for run in runs])}",
        *([f"out={display_path(out)}"] if out is not None else []),
    ]
    arguments += [f"{name}={number}" for name, number in settings.items() if number != _DEFAULTS[name]]
    if tuple(thresholds) != _THRESHOLDS:
        arguments.append(f"thresholds=[{','.join(map(str, thresholds))}]")
    arguments += ["explain=true"] * explain
    return f"agegender report {shlex.join(arguments)}"


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    resamples: int = 2000,
    faces: int = 24,
    seed: int = 0,
    thresholds: Sequence[int] = _THRESHOLDS,
    explain: bool = False,
) -> Path:
    """Write a report on one run, or on two side by side: `report.html`, `report.json` and each plot as a PNG.

    Args:
        runs: Folders of finished runs.
        out: Output folder; None for `report` in the run's folder, or `report_with_<second run>` in the first one's.
        resamples: Number of bootstrap resamples.
        faces: Number of faces in each row.
        seed: Random seed of the resamples and of the random faces; the same runs and seed give the same values.
        thresholds: Age limits in whole years whose error rates are given; none for no such section.
        explain: Add occlusion maps of the worst predictions, from the runs' checkpoints: one to three seconds per face
            and task on a CPU.

    Returns:
        Path of the page.

    Raises:
        AgeGenderError: More than two runs, a missing or damaged file, or a folder that can't be written.
    """
    return _write(runs, out, {"resamples": resamples, "faces": faces, "seed": seed}, thresholds, explain)[0]


def _write(
    runs: Sequence[Path], out: Path | None, settings: dict[str, int], thresholds: Sequence[int], explain: bool
) -> tuple[Path, Report]:
    # matplotlib and other slow imports: `--help` and errors in the settings don't wait for them
    from agegender.evaluation.html.page import write_page_with_numbers
    from agegender.evaluation.report.comparison import build_report, report_json
    from agegender.evaluation.report.page import build_page

    command = report_command(runs, out, settings, thresholds, explain)
    report = build_report([Path(display_path(run)) for run in runs], settings, command, thresholds)
    more = []
    if explain:
        from agegender.evaluation.saliency.sections import saliency_sections

        more = saliency_sections(report.runs, report.findings)
    names = [run.resolve().name for run in runs]
    folder = out or runs[0] / ("report" if len(runs) == 1 else f"report_with_{names[1]}")
    page, numbers = build_page(report, more), report_json(report)
    write_page_with_numbers(page, numbers, folder, "report")
    return folder / "report.html", report


def report(
    run: str | list[str] | None,
    out: str | None = None,
    resamples: int = 2000,
    faces: int = 24,
    seed: int = 0,
    thresholds: list[int] | None = None,
    explain: bool = False,
) -> None:
    """Write a report and print its headline metrics.

    Args:
        run: A run's folder, a folder of runs (its newest is taken), two of either, or None for the newest run of all.
        out: See `write_report`.
        resamples: See `write_report`.
        faces: See `write_report`.
        seed: See `write_report`.
        thresholds: See `write_report`; None for those of `conf/report.yaml`.
        explain: See `write_report`.

    Raises:
        AgeGenderError: See `write_report`.
    """
    from agegender.evaluation.report.page import headline_lines
    from agegender.evaluation.report.run_reader import find_runs

    settings = {"resamples": resamples, "faces": faces, "seed": seed}
    limits = _THRESHOLDS if thresholds is None else thresholds
    page, made = _write(find_runs(run), Path(out) if out else None, settings, limits, explain)
    for label, each in made.runs.items():
        print(f"{label}: {each.folder}" if label else each.folder)
    print("\n".join(headline_lines(made)))
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(page)
