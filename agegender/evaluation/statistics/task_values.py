"""The values of each image whose means are the metrics of a task, by the task's kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.statistics.calibration import within_interval
from agegender.evaluation.statistics.metrics import AGE, Floats, Integers
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo

# Values `[n]`, and the mask `[n]` of the images whose mean is the metric.
Values = tuple[Floats, NDArray[np.bool_]]

COVERAGE = 0.8  # nominal coverage of the predicted intervals
# Accuracy of gender is given for older faces as well: infants' gender is hardly visible, for people too.
GENDER, GROWN = "gender", 5  # years


def task_values(
    task: TaskInfo, labels: Mapping[str, Floats], columns: Mapping[str, Floats], tolerance: float | None = None
) -> dict[str, Values]:
    """Return the values of every metric of a task that is a mean over images.

    Args:
        task: The task.
        labels: `[n]` by label; NaN where unknown.
        columns: `[n]` by the tasks' columns.
        tolerance: Error up to which a number counts in the cumulative score; None for no score.

    Returns:
        By metric. For a number: `mae`, `bias`, with a tolerance k `cs<k>` and, for a whole k, `cs<k>_whole` of
        predictions rounded to whole numbers, and `coverage`. For classes: `acc`, `answered` (the likeliest class has at
        least the task's `min_confidence`), `acc_answered` and, for gender, `acc_from_5`.
    """
    return _number(task, labels, columns, tolerance) if task.kind == "number" else _classes(task, labels, columns)


def is_subgroup_metric(metric: str) -> bool:
    """Return whether a metric is computed for subgroups of the images too."""
    return metric in ("mae", "bias", "coverage", "acc") or (metric.startswith("cs") and not metric.endswith("_whole"))


def _number(
    task: TaskInfo, labels: Mapping[str, Floats], columns: Mapping[str, Floats], tolerance: float | None
) -> dict[str, Values]:
    label, value = labels[task.label], columns[task.columns[0]]
    known, errors = ~np.isnan(label), value - label
    found = {"mae": (np.abs(errors), known), "bias": (errors, known)}
    if tolerance is not None:
        found[f"cs{tolerance:g}"] = (_at_most(np.abs(errors), tolerance), known)
        if tolerance == round(tolerance):
            # Labels are whole numbers: ten of them lie within 5 of 30.4, but eleven within 5 of 30. So the score favors
            # models that predict whole numbers (classes, ranks), and is computed for rounded predictions as well.
            found[f"cs{tolerance:g}_whole"] = (_at_most(np.abs(np.rint(value) - label), tolerance), known)
    return found | {"coverage": _covered(label, *(columns[name] for name in task.columns[:NUMBER_COLUMNS]))}


def _at_most(errors: Floats, limit: float) -> Floats:
    return (errors <= limit).astype(np.float64)


def _covered(label: Floats, value: Floats, std: Floats, low: Floats, high: Floats) -> Values:
    """Return whether the label lies in the 80 % interval; without one, in that of a normal distribution."""
    interval = ~np.isnan(low)
    std_only = ~np.isnan(std) & ~interval
    normal = within_interval(np.abs(value - label), np.where(std_only, std, 0.0), COVERAGE)
    inside = ((low <= label) & (label <= high)).astype(np.float64)
    return np.where(interval, inside, normal), (interval | std_only) & ~np.isnan(label)


def _classes(task: TaskInfo, labels: Mapping[str, Floats], columns: Mapping[str, Floats]) -> dict[str, Values]:
    label = labels[task.label]
    predicted, confidence = likeliest(task, columns)
    known, right = ~np.isnan(label), (predicted == label).astype(np.float64)
    found = {"acc": (right, known)}
    if task.label == GENDER and AGE in labels:
        found["acc_from_5"] = (right, known & (labels[AGE] >= GROWN))
    answered = confidence >= task.min_confidence
    return found | {"answered": (answered.astype(np.float64), known), "acc_answered": (right, known & answered)}


def calibration_pair(
    task: TaskInfo, labels: Mapping[str, Floats], columns: Mapping[str, Floats]
) -> tuple[Floats, Floats]:
    """Return a predicted probability `[n]` and whether its event occurred `[n]`, for a task with classes.

    For two classes it is the event of the second one, for more that the likeliest class is the true one.
    """
    if task.kind == "binary":
        return columns[task.columns[0]], labels[task.label]
    predicted, confidence = likeliest(task, columns)
    return confidence, (predicted == labels[task.label]).astype(np.float64)


def likeliest(task: TaskInfo, columns: Mapping[str, Floats]) -> tuple[Integers, Floats]:
    """Return the likeliest class `[n]` of a task with classes, the first of equal ones, and its probability `[n]`."""
    given = [columns[name] for name in task.columns]
    probabilities = np.stack([1 - given[0], given[0]] if task.kind == "binary" else given, axis=1)
    return probabilities.argmax(1), probabilities.max(1)
