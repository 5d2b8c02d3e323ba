"""The opening of a report: its main metrics as one sentence, and as three large numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from agegender.evaluation.html.metric_format import PERCENT, Form, capitalize, format_interval, format_number
from agegender.evaluation.html.page import BigNumber
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.metrics import AGE
from agegender.tasks.info import TaskInfo

# Metrics of a task by name, by the run's label: the empty string for a single run.
RunEstimates = Mapping[str, Mapping[str, Estimate]]
TaskEstimates = Sequence[tuple[TaskInfo, RunEstimates]]

_SHOWN = 3
_ONE_DECIMAL: Form = (1, 1)
# Labels of the metrics by pattern of their name, in groups of equal rank.
_LABELS: Sequence[Mapping[str, str]] = (
    {"mae": "mean error of {task}", "acc": "right about {task}"},
    {r"cs([\d.]+)": "within {limit} of the true {task}"},
    {"answered": "answered, not unsure about {task}"},
    {"coverage": "inside the 80 % intervals of {task}"},
)
_BIAS = {"bias": "mean of predicted minus true {task}"}


def overview_sentence(found: TaskEstimates) -> str:
    """Return the mean error or the accuracy of each task as one sentence.

    Args:
        found: Each task with the metrics of the runs that know its label, `mae` or `acc` among them.
    """
    words = task_words(found)
    return f"{capitalize(words)}." if words else "No test image has a label of these tasks."


def task_words(found: TaskEstimates) -> str:
    """Return what `overview_sentence` says, without capital and period; empty if no label is known."""
    return "; ".join(_part(task, runs) for task, runs in found if runs)


def _part(task: TaskInfo, runs: RunEstimates) -> str:
    if task.kind == "number":
        subject = "" if task.label == AGE else f" in {task.name}"
        values = {
            run: f"{format_number(metrics['mae'].value, _ONE_DECIMAL)} {task.unit}".strip() + subject
            for run, metrics in runs.items()
        }
        start, end = "off by", " on average"
    else:
        values = {run: of_hundred(metrics["acc"].value) for run, metrics in runs.items()}
        start, end = f"right about {task.name} for", ""
    (run, first), *others = values.items()
    opening = f"{run} is {start} {first}{end}" if run else f"{start} {first}{end}"
    return ", ".join([opening, *(f"{run} {value}" for run, value in others)])


def of_hundred(fraction: float) -> str:
    """Return a fraction in words such as `95 of 100`; all or none only if that is exact."""
    if 0.995 <= fraction < 1:
        return "more than 99 of 100"
    if 0 < fraction < 0.005:
        return "less than 1 of 100"
    return f"{100 * fraction:.0f} of 100"


def big_numbers(found: TaskEstimates, images: Mapping[str, int]) -> list[BigNumber]:
    """Return three large numbers: the mean error or the accuracy of the first tasks, then further metrics of theirs.

    Args:
        found: As for `overview_sentence`.
        images: Number of test images by run.
    """
    known = [(task, runs) for task, runs in found if runs]
    shown = [number for group in _LABELS for task, runs in known for number in _numbers(task, group, runs)]
    count = BigNumber(" / ".join(f"{number:,}" for number in images.values()), _titled("test images", images))
    return [*shown, count, *(number for task, runs in known for number in _numbers(task, _BIAS, runs))][:_SHOWN]


def _numbers(task: TaskInfo, labels: Mapping[str, str], runs: RunEstimates) -> list[BigNumber]:
    """Return the metrics that the labels are of, if each run has them, with their intervals."""
    found = []
    for pattern, label in labels.items():
        for name in next(iter(runs.values())):
            match = re.fullmatch(pattern, name)
            if match and all(name in metrics and math.isfinite(metrics[name].value) for metrics in runs.values()):
                limit = f"{match[1]} {task.unit}".strip() if match.groups() else ""
                title = _titled(label.format(task=task.name, limit=limit), runs)
                found.append(_big_number(title, [metrics[name] for metrics in runs.values()], name, task.unit))
    return found


def _big_number(title: str, values: Sequence[Estimate], metric: str, unit: str) -> BigNumber:
    in_units = metric in ("mae", "bias")
    form, unit = (_ONE_DECIMAL, unit) if in_units else (PERCENT, "%")
    texts = [format_interval(value, form, "+" if metric == "bias" else "") for value in values]
    shown, intervals = (" / ".join(parts) for parts in zip(*texts, strict=True))
    return BigNumber(f"{shown} {unit}".strip(), title, f"95 % interval {intervals}")


def _titled(label: str, runs: Mapping[str, object]) -> str:
    return label if len(runs) == 1 else f"{label}: {' / '.join(runs)}"
