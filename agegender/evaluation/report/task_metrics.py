"""The metrics of one task, with a class for each kind of task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.calibration import IntervalCalibration, Reliability, reliability, spread
from agegender.evaluation.statistics.metrics import Floats, Integers, Roc, confusion, cumulative_score, roc
from agegender.evaluation.statistics.task_values import calibration_pair, likeliest
from agegender.tasks.info import TaskInfo


@dataclass(frozen=True)
class TaskMetrics:
    """What is common to the metrics of all kinds of tasks.

    Attributes:
        task: The task.
        images: Number of images whose label is known; the metrics are computed from these.
        metrics: Means over images, AUROC and ECE by name; in the task's unit, or from 0 to 1.
        worst: Rows `[k]` of the images with the largest errors, or with the most confident mistakes.
    """

    task: TaskInfo
    images: int
    metrics: dict[str, Estimate]
    worst: Integers

    @property
    def headline(self) -> dict[str, Estimate]:
        """The headline metrics by name, in order."""
        return {name: found for name, found in self.metrics.items() if name not in ("bias", "coverage")}


@dataclass(frozen=True)
class NumberMetrics(TaskMetrics):
    """The metrics of a number.

    Attributes:
        limits: `[k]`, errors up to four times the task's tolerance; empty without a tolerance.
        cumulative_score: `[k]`, fraction of the errors up to each limit.
        spread: Calibration of the predicted standard deviations; None if the run predicts none.
    """

    limits: Floats
    cumulative_score: Floats
    spread: IntervalCalibration | None


@dataclass(frozen=True)
class ClassMetrics(TaskMetrics):
    """The metrics of a task with classes.

    Attributes:
        confusion: `[classes, classes]`, true by predicted class.
        reliability: Reliability diagram; see `calibration_pair`.
        roc: None for more than two classes, and unless both classes were tested.
    """

    confusion: Integers
    reliability: Reliability
    roc: Roc | None


def number_metrics(run: RunPredictions, task: TaskInfo, metrics: dict[str, Estimate], faces: int) -> NumberMetrics:
    """Add to the estimates of a number its other metrics, and at most `faces` examples."""
    known = run.known(task)
    errors = np.abs(run.columns[task.columns[0]] - run.labels[task.label])
    limits = np.arange(21) / 5 * run.tolerances[task.name] if task.name in run.tolerances else np.empty(0)
    return NumberMetrics(
        task=task,
        images=int(known.sum()),
        metrics=metrics,
        worst=_largest(errors, known, faces),
        limits=limits,
        cumulative_score=cumulative_score(errors[known], limits),
        spread=spread(errors[known], run.columns[task.columns[1]][known]),
    )


def class_metrics(run: RunPredictions, task: TaskInfo, metrics: dict[str, Estimate], faces: int) -> ClassMetrics:
    """Add to the estimates of a task with classes its other metrics, and at most `faces` examples."""
    known, (predicted, confidence) = run.known(task), likeliest(task, run.columns)
    wrong = known & (predicted != run.labels[task.label])
    probability, outcome = (values[known] for values in calibration_pair(task, run.labels, run.columns))
    true = run.labels[task.label][known].astype(np.int64)
    return ClassMetrics(
        task=task,
        images=int(known.sum()),
        metrics=metrics,
        worst=_largest(confidence, wrong, faces),
        confusion=confusion(true, predicted[known], len(task.classes)),
        reliability=reliability(probability, outcome),
        roc=roc(probability, true) if task.kind == "binary" else None,
    )


def _largest(values: Floats, counted: NDArray[np.bool_], count: int) -> Integers:
    """Return the rows of the largest of the counted values `[n]`, in descending order."""
    rows = np.flatnonzero(counted)
    return rows[np.argsort(-values[rows], kind="stable")][:count]
