"""What a report is made from: one run, or two that are compared; and `report.json`, which holds all its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from agegender.data.names import MISSING
from agegender.errors import require
from agegender.evaluation.bootstrap import CONFIDENCE, Estimate
from agegender.evaluation.findings import HEADLINE, YEARS, Findings, measure, paired_difference, plain
from agegender.evaluation.run_files import Answers, Run, read_run

LABELS = ("A", "B")  # of two runs; folder names are long, alike, and of any characters


@dataclass(frozen=True)
class Report:
    """One run, or two.

    Attributes:
        runs: By label: empty for a single run, else `LABELS`.
        findings: What was counted of each.
        difference: B minus A of each headline figure, paired; None for a single run or different test images.
        warnings: What keeps the two from being compared, in sentences.
        settings: `resamples`, `faces` and `seed`.
        command: What makes this report.
    """

    runs: Mapping[str, Run]
    findings: Mapping[str, Findings]
    difference: dict[str, Estimate] | None
    warnings: list[str]
    settings: dict[str, int]
    command: str


def build_report(folders: Sequence[Path], settings: dict[str, int], command: str) -> Report:
    """Reads one or two runs and counts everything.

    Args:
        folders: Of the runs.
        settings: `resamples` of the bootstrap, `faces` in each row of cases, `seed` of both.
        command: What makes this report, for the reader.

    Raises:
        AgeGenderError: More than two runs, the same one twice, a damaged file, or a setting that means nothing.
    """
    require(0 < len(folders) <= 2, f"a report is about one run or two, not {len(folders)}: run=a or run=a,b")
    same = len({folder.resolve() for folder in folders}) < len(folders)
    require(not same, f"run= names {folders[0]} twice; give two runs, or one")
    for name, least in (("resamples", 1), ("faces", 0), ("seed", 0)):
        require(settings[name] >= least, f"{name}={settings[name]} must be at least {least}")
    runs = dict(zip(LABELS if len(folders) > 1 else ("",), _with_one_view_of_copies(folders), strict=True))
    findings = {label: measure(run.answers, **settings) for label, run in runs.items()}
    paired = len(runs) == 2 and _same_images([run.answers for run in runs.values()])
    difference = paired_difference(findings["A"], findings["B"]) if paired else None
    warnings = [f"{label} {foreign_weights(run)}".strip() for label, run in runs.items() if not same_split(run)]
    warnings += _warnings(runs, paired) if len(runs) == 2 else []
    return Report(runs, findings, difference, warnings, settings, command)


def _with_one_view_of_copies(folders: Sequence[Path]) -> list[Run]:
    """Reads the runs; what one of them knows about copies among the same test images holds for the other."""
    runs = [read_run(folder) for folder in folders]
    # Exact copies only, or near ones too: of two views, the one that finds more copies leaves fewer photographs.
    views = [run.answers for run in runs if run.answers.clustered]
    known = min(views, key=lambda answers: int(answers.clusters.max()), default=None)
    if known is None or not _same_images([run.answers for run in runs]):
        return runs
    return [replace(run, answers=replace(run.answers, clusters=known.clusters, clustered=True)) for run in runs]


def _same_images(answers: Sequence[Answers]) -> bool:
    return all(each.names == answers[0].names for each in answers)


def same_split(run: Run) -> bool:
    """Tells whether the weights that a run began with, if any, were made under the split that it was tested on."""
    return run.results.get("weights_split_fingerprint") in (None, run.results.get("split_fingerprint"))


def foreign_weights(run: Run) -> str:
    """Says what follows where they were not."""
    ours, theirs = (run.results.get(name) for name in ("split_fingerprint", "weights_split_fingerprint"))
    return (
        f"began with weights that were trained under split {theirs} and was tested on split {ours}: some of its test "
        "images may have been trained on, so its figures may flatter it."
    )


def _warnings(runs: Mapping[str, Run], paired: bool) -> list[str]:
    splits = [str(run.results.get("split_fingerprint", "unknown")) for run in runs.values()]
    found = []
    if splits[0] != splits[1] or "unknown" in splits:
        found.append(
            f"The runs were split differently (A: {splits[0]}, B: {splits[1]}): one may have trained on pictures that "
            "the other was tested on, so their figures can't be compared."
        )
    if not paired:
        found.append("The runs were tested on different images: no difference is given.")
    return found


def report_json(report: Report) -> dict[str, Any]:
    """Returns every number of the page as plain values; what is not a number is None."""
    return {
        "command": report.command,
        "confidence": CONFIDENCE,
        **report.settings,
        "warnings": report.warnings,
        "difference": plain(report.difference),
        "runs": [_run_json(run, report.findings[label], label) for label, run in report.runs.items()],
    }


def baseline(run: Run) -> dict[str, float]:
    """Returns what always giving the same answer scores on the run's test images, by measure, as far as it is known."""
    known = {name: run.results.get(f"baseline/{name}") for name in HEADLINE}
    return {name: float(value) for name, value in known.items() if value is not None}


def _run_json(run: Run, findings: Findings, label: str) -> dict[str, Any]:
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
        "copies_known": run.answers.clustered,
        **plain({**kept, "cumulative_score": shares}),
        "cases": {kind: [_case_json(run.answers, row) for row in rows.tolist()] for kind, rows in cases.items()},
        "robustness": run.robustness,
        "curves": {tag: _curve_json(points) for tag, points in run.curves.items()},
    }


def _curve_json(points: Mapping[int, float]) -> dict[str, Any]:
    return {"epoch": list(points), "value": plain(list(points.values()))}


def _case_json(answers: Answers, row: int) -> dict[str, Any]:
    columns = ("age", "age_pred", "age_std", "gender", "p_female", "group")
    numbers = {name: getattr(answers, name)[row].item() for name in columns}
    for name in ("gender", "group"):
        numbers[name] = None if numbers[name] == MISSING else numbers[name]
    return {"file": answers.names[row], **{name: plain(value) for name, value in numbers.items()}}
