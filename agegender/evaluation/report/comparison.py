"""The data of a report on one run or on two compared runs, and its serialization to `report.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from agegender.errors import require
from agegender.evaluation.compare.pairing import Tested, class_tests, pair
from agegender.evaluation.decisions.decisions import Decisions, decide, decisions_json
from agegender.evaluation.fairness.measure import MetricFairness, measure_fairness
from agegender.evaluation.label_noise.measure import LabelNoise
from agegender.evaluation.label_noise.section import noise_by_task
from agegender.evaluation.report.analysis import RunMetrics, analyze, paired_difference, to_json
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import Run, read_run
from agegender.evaluation.report.task_metrics import TaskMetrics
from agegender.evaluation.statistics.bootstrap import CONFIDENCE, Estimate
from agegender.evaluation.statistics.mcnemar import McNemar
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo, check_thresholds

Metrics = TypeVar("Metrics", bound=TaskMetrics)

LABELS = ("A", "B")  # of two runs; folder names are too long and too similar to label a plot


@dataclass(frozen=True)
class Report:
    """The data of a report on one run or two.

    Attributes:
        runs: By label: the empty string for a single run, else `LABELS`.
        findings: Metrics of each run, by label.
        decisions: Metrics of decisions by each run's predictions, by label.
        difference: B minus A of each headline metric, paired; None for a single run or different test images.
        warnings: Reasons not to compare the two runs, or not to trust one, in sentences.
        settings: `resamples`, `faces` and `seed`.
        thresholds: Age limits in years.
        command: Command line that makes this report.
    """

    runs: Mapping[str, Run]
    findings: Mapping[str, RunMetrics]
    decisions: Mapping[str, Decisions]
    difference: dict[str, Estimate] | None
    warnings: list[str]
    settings: dict[str, int]
    thresholds: list[int]
    command: str

    @property
    def tasks(self) -> list[TaskInfo]:
        """The tasks of the runs, those of the first run first."""
        found: dict[str, TaskInfo] = {}
        for task in (task for run in self.runs.values() for task in run.predictions.tasks):
            found.setdefault(task.name, task)
        return list(found.values())

    @cached_property
    def fairness(self) -> dict[str, list[MetricFairness]]:
        """The gaps of each run between the groups of each label, by the run's label."""
        settings = self.settings["resamples"], self.settings["seed"]
        return {label: measure_fairness(run.predictions, *settings) for label, run in self.runs.items()}

    @cached_property
    def label_noise(self) -> dict[str, LabelNoise]:
        """The disagreement between the labels of copies, by task."""
        return noise_by_task((run.predictions for run in self.runs.values()), self.tasks)

    @cached_property
    def mcnemar(self) -> dict[str, McNemar]:
        """The tests of equal accuracy by task; empty if `difference` is None."""
        return class_tests({label: run.predictions for label, run in self.runs.items()}) if self.difference else {}

    def of_task(self, task: TaskInfo, kind: type[Metrics]) -> dict[str, Metrics]:
        """Return the metrics of a task by run, of the runs with at least one test image whose label is known.

        Args:
            task: The task.
            kind: Class of the task's metrics; for a task of another kind there are none.
        """
        found = {label: findings.tasks.get(task.name) for label, findings in self.findings.items()}
        return {label: each for label, each in found.items() if isinstance(each, kind) and each.images}


def build_report(
    folders: Sequence[Path],
    settings: dict[str, int],
    command: str,
    thresholds: Sequence[int] = (),
    tested: Tested = "any",
) -> Report:
    """Read one or two runs and compute all metrics.

    Args:
        folders: Run folders.
        settings: `resamples` of the bootstrap, `faces` in each row of cases, `seed` of both.
        command: Command line that makes this report, shown on the page.
        thresholds: Age limits in whole years; none for no such section.
        tested: Images that two runs must have been tested on.

    Raises:
        AgeGenderError: More than two runs, the same run twice, a damaged file, a setting below its minimum, or two runs
            that were not tested on the required images.
    """
    require(0 < len(folders) <= 2, f"a report is about one run or two, not {len(folders)}: run=a or run=a,b")
    same = len({folder.resolve() for folder in folders}) < len(folders)
    require(not same, f"run= names {folders[0]} twice; give two runs, or one")
    for name, least in (("resamples", 1), ("faces", 0), ("seed", 0)):
        require(settings[name] >= least, f"{name}={settings[name]} must be at least {least}")
    check_thresholds(thresholds)
    read = pair([read_run(folder) for folder in folders], tested)
    runs = dict(zip(LABELS if len(folders) > 1 else ("",), _with_one_view_of_copies(read), strict=True))
    _require_like_tasks(list(runs.values()))
    findings = {label: analyze(run.predictions, **settings) for label, run in runs.items()}
    drawn = settings["resamples"], settings["seed"]
    decisions = {label: decide(run.predictions, thresholds, *drawn) for label, run in runs.items()}
    paired = len(runs) == 2 and _same_images([run.predictions for run in runs.values()])
    difference = paired_difference(findings["A"], findings["B"]) if paired else None
    warnings = [f"{label} {leak_warning(run)}".strip() for label, run in runs.items() if not same_split(run)]
    warnings += _warnings(runs, paired, tested) if len(runs) == 2 else []
    return Report(runs, findings, decisions, difference, warnings, settings, list(thresholds), command)


def _require_like_tasks(runs: Sequence[Run]) -> None:
    """Raise an error if two tasks of one name predict different things."""
    described: dict[str, tuple[Any, ...]] = {}
    for task in (task for run in runs for task in run.predictions.tasks):
        columns = task.columns[:NUMBER_COLUMNS] if task.kind == "number" else task.columns
        meaning = (task.kind, task.label, columns, task.classes, task.unit)
        same = described.setdefault(task.name, meaning) == meaning
        require(same, f"the task {task.name} of {runs[-1].folder} is another one: report on each run by itself")


def _with_one_view_of_copies(runs: list[Run]) -> list[Run]:
    """Give both runs the same clusters of copies, if they were tested on the same images."""
    # One run may have searched for exact copies only: take the clustering with more copies, that is, fewer clusters.
    views = [run.predictions for run in runs if run.predictions.duplicates_known]
    known = min(views, key=lambda view: int(view.clusters.max()), default=None)
    if known is None or not _same_images([run.predictions for run in runs]):
        return runs
    shared = [replace(run.predictions, clusters=known.clusters, duplicates_known=True) for run in runs]
    return [replace(run, predictions=predictions) for run, predictions in zip(runs, shared, strict=True)]


def _same_images(predictions: Sequence[RunPredictions]) -> bool:
    return all(each.names == predictions[0].names for each in predictions)


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


def _warnings(runs: Mapping[str, Run], paired: bool, tested: Tested) -> list[str]:
    splits = [str(run.results.get("split_fingerprint", "unknown")) for run in runs.values()]
    found = []
    if splits[0] != splits[1] or "unknown" in splits:
        which = f"The runs were split differently (A: {splits[0]}, B: {splits[1]}): "
        found.append(
            f"{which}only the faces that both were tested on are compared. A copy of one may be among the training "
            "images of either run, if it did not keep copies together."
            if tested == "common"
            else f"{which}one may have trained on images that the other was tested on, so their metrics can't be "
            "compared."
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
        "thresholds": report.thresholds,
        "warnings": report.warnings,
        "difference": to_json(report.difference),
        "mcnemar": to_json(report.mcnemar) if report.difference is not None else None,
        "label_noise": {task: _noise_json(noise) for task, noise in report.label_noise.items()},
        "runs": [
            _run_json(report, run, label) | to_json(decisions_json(report.decisions[label]))
            for label, run in report.runs.items()
        ],
    }


def baseline(run: Run, names: Iterable[str]) -> dict[str, float]:
    """Return the metrics of a constant prediction on the run's test images, of those in `names` that were recorded."""
    known = {name: run.results.get(f"baseline/{name}") for name in names}
    return {name: float(value) for name, value in known.items() if value is not None}


def _noise_json(noise: LabelNoise) -> dict[str, Any]:
    return {name: value for name, value in to_json(noise).items() if name != "errors"}


def _run_json(report: Report, run: Run, label: str) -> dict[str, Any]:
    findings = report.findings[label]
    return {
        "label": label,
        "run": run.folder.resolve().name,
        "split_fingerprint": run.results.get("split_fingerprint"),
        "weights_split_fingerprint": run.results.get("weights_split_fingerprint"),
        "data": run.results.get("data"),
        "best_epoch": run.results.get("best_epoch"),
        "pooled": run.results.get("pooled"),
        "baseline": baseline(run, findings.headline),
        "copies_known": run.predictions.duplicates_known,
        "images": findings.images,
        "clusters": findings.clusters,
        "headline": to_json(findings.headline),
        "tasks": {
            name: {**to_json(metrics), "worst": [_case_json(run.predictions, row) for row in metrics.worst.tolist()]}
            for name, metrics in findings.tasks.items()
        },
        "slices": to_json(findings.slices),
        "fairness": to_json(report.fairness[label]),
        "random": [_case_json(run.predictions, row) for row in findings.random.tolist()],
        "robustness": run.robustness,
        "curves": {tag: _curve_json(points) for tag, points in run.curves.items()},
    }


def _curve_json(points: Mapping[int, float]) -> dict[str, Any]:
    return {"epoch": list(points), "value": to_json(list(points.values()))}


def _case_json(predictions: RunPredictions, row: int) -> dict[str, Any]:
    labels, columns = (
        {name: to_json(values[row]) for name, values in table.items()}
        for table in (predictions.labels, predictions.columns)
    )
    return {"file": predictions.names[row], "labels": labels, "columns": columns}
