"""The data of a report on one run or on two compared runs, and its serialization to `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from agegender.data.index.utkface import MISSING
from agegender.errors import require
from agegender.evaluation.report.analysis import HEADLINE, YEARS, RunMetrics, analyze, paired_difference, to_json
from agegender.evaluation.report.run_reader import Run, RunPredictions, read_run
from agegender.evaluation.statistics.bootstrap import CONFIDENCE, Estimate

LABELS = ("A", "B")  # of two runs; folder names are too long and too similar to label a plot


@dataclass(frozen=True)
class Report:
    """The data of a report on one run or two.

    Attributes:
        runs: By label: the empty string for a single run, else `LABELS`.
        findings: Metrics of each run, by label.
        difference: B minus A of each headline metric, paired; None for a single run or different test images.
        warnings: Reasons not to compare the two runs, or not to trust one, in sentences.
        settings: `resamples`, `faces` and `seed`.
        command: Command line that makes this report.
    """

    runs: Mapping[str, Run]
    findings: Mapping[str, RunMetrics]
    difference: dict[str, Estimate] | None
    warnings: list[str]
    settings: dict[str, int]
    command: str


def build_report(folders: Sequence[Path], settings: dict[str, int], command: str) -> Report:
    """Read one or two runs and compute all metrics.

    Args:
        folders: Run folders.
        settings: `resamples` of the bootstrap, `faces` in each row of cases, `seed` of both.
        command: Command line that makes this report, shown on the page.

    Raises:
        AgeGenderError: More than two runs, the same run twice, a damaged file, or a setting below its minimum.
    """
    require(0 < len(folders) <= 2, f"a report is about one run or two, not {len(folders)}: run=a or run=a,b")
    same = len({folder.resolve() for folder in folders}) < len(folders)
    require(not same, f"run= names {folders[0]} twice; give two runs, or one")
    for name, least in (("resamples", 1), ("faces", 0), ("seed", 0)):
        require(settings[name] >= least, f"{name}={settings[name]} must be at least {least}")
    runs = dict(zip(LABELS if len(folders) > 1 else ("",), _with_one_view_of_copies(folders), strict=True))
    findings = {label: analyze(run.answers, **settings) for label, run in runs.items()}
    paired = len(runs) == 2 and _same_images([run.answers for run in runs.values()])
    difference = paired_difference(findings["A"], findings["B"]) if paired else None
    warnings = [f"{label} {leak_warning(run)}".strip() for label, run in runs.items() if not same_split(run)]
    warnings += _warnings(runs, paired) if len(runs) == 2 else []
    return Report(runs, findings, difference, warnings, settings, command)


def _with_one_view_of_copies(folders: Sequence[Path]) -> list[Run]:
    """Read the runs and give both the same clusters of copies, if they were tested on the same images."""
    runs = [read_run(folder) for folder in folders]
    # One run may have searched for exact copies only: take the clustering with more copies, that is, fewer clusters.
    views = [run.answers for run in runs if run.answers.duplicates_known]
    known = min(views, key=lambda answers: int(answers.clusters.max()), default=None)
    if known is None or not _same_images([run.answers for run in runs]):
        return runs
    return [replace(run, answers=replace(run.answers, clusters=known.clusters, duplicates_known=True)) for run in runs]


def _same_images(answers: Sequence[RunPredictions]) -> bool:
    return all(each.names == answers[0].names for each in answers)


def same_split(run: Run) -> bool:
    """Return whether a run's initial weights, if any, were trained under the split that it was tested on."""
    return run.results.get("weights_split_fingerprint") in (None, run.results.get("split_fingerprint"))


def leak_warning(run: Run) -> str:
    """Return the warning for a run whose initial weights were trained under another split, without its subject."""
    ours, theirs = (run.results.get(name) for name in ("split_fingerprint", "weights_split_fingerprint"))
    return (
        f"began with weights that were trained under split {theirs} and was tested on split {ours}: some of its test "
        "images may have been trained on, so its metrics may be optimistic."
    )


def _warnings(runs: Mapping[str, Run], paired: bool) -> list[str]:
    splits = [str(run.results.get("split_fingerprint", "unknown")) for run in runs.values()]
    found = []
    if splits[0] != splits[1] or "unknown" in splits:
        found.append(
            f"The runs were split differently (A: {splits[0]}, B: {splits[1]}): one may have trained on images that "
            "the other was tested on, so their metrics can't be compared."
        )
    if not paired:
        found.append("The runs were tested on different images: no difference is given.")
    return found


def report_json(report: Report) -> dict[str, Any]:
    """Return every value of the page in plain types for JSON; NaN and infinity become None."""
    return {
        "command": report.command,
        "confidence": CONFIDENCE,
        **report.settings,
        "warnings": report.warnings,
        "difference": to_json(report.difference),
        "runs": [_run_json(run, report.findings[label], label) for label, run in report.runs.items()],
    }


def baseline(run: Run) -> dict[str, float]:
    """Return the run's constant-prediction baseline on its test images, by metric, where it was recorded."""
    known = {name: run.results.get(f"baseline/{name}") for name in HEADLINE}
    return {name: float(value) for name, value in known.items() if value is not None}


def _run_json(run: Run, findings: RunMetrics, label: str) -> dict[str, Any]:
    kept = {field.name: getattr(findings, field.name) for field in fields(findings) if field.name != "samples"}
    shares = {"years": YEARS, "share": findings.cumulative_score}
    cases = {field.name: getattr(findings.cases, field.name) for field in fields(findings.cases)}
    return {
        "label": label,
        "run": run.folder.resolve().name,
        "split_fingerprint": run.results.get("split_fingerprint"),
        "weights_split_fingerprint": run.results.get("weights_split_fingerprint"),
        "age_class_acc": run.results.get("test/age_class_acc"),
        "data": run.results.get("data"),
        "best_epoch": run.results.get("best_epoch"),
        "min_confidence": run.answers.min_confidence,
        "baseline": baseline(run),
        "copies_known": run.answers.duplicates_known,
        **to_json({**kept, "cumulative_score": shares}),
        "cases": {kind: [_case_json(run.answers, row) for row in rows.tolist()] for kind, rows in cases.items()},
        "robustness": run.robustness,
        "curves": {tag: _curve_json(points) for tag, points in run.curves.items()},
    }


def _curve_json(points: Mapping[int, float]) -> dict[str, Any]:
    return {"epoch": list(points), "value": to_json(list(points.values()))}


def _case_json(answers: RunPredictions, row: int) -> dict[str, Any]:
    columns = ("age", "age_pred", "age_std", "gender", "p_female", "group")
    numbers = {name: getattr(answers, name)[row].item() for name in columns}
    for name in ("gender", "group"):
        numbers[name] = None if numbers[name] == MISSING else numbers[name]
    return {"file": answers.names[row], **{name: to_json(value) for name, value in numbers.items()}}
