"""Display names and formats of a task's metrics, for pages and the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.task_values import GROWN
from agegender.tasks.info import TaskInfo

NOTHING = "n/a"

Form = tuple[int, int]  # factor and decimals that a value is shown with
IN_UNITS: Form = (1, 2)
PERCENT: Form = (100, 1)
ACCURACY: Form = (100, 2)


def capitalize(text: str) -> str:
    """Return the text with its first letter in upper case, as a title."""
    return text[:1].upper() + text[1:]


def with_unit(text: str, task: TaskInfo) -> str:
    """Return a text with the unit of a number, if it has one."""
    return f"{text}, {task.unit}" if task.unit else text


def metric_title(task: TaskInfo, metric: str) -> tuple[str, Form] | None:
    """Return a metric's display name and its format; None for an unknown one. See `task_values` for their names."""
    name = task.name
    if score := re.fullmatch(r"cs([\d.]+)(_whole)?", metric):
        rounded = f" of predictions in whole {task.unit or 'numbers'}" if score[2] else ""
        return f"CS@{score[1]}{rounded}, %", PERCENT
    return {
        "loss": (f"{name} loss", (1, 3)),
        "mae": (with_unit(f"{name} MAE", task), IN_UNITS),
        "mse": (with_unit(f"{name} MSE", task) + " squared", (1, 1)),
        "bias": (with_unit("bias", task), IN_UNITS),
        "coverage": (f"80 % {name} intervals hold, %", PERCENT),
        "acc": (f"{name} accuracy, %", ACCURACY),
        "class_acc": (f"{name} class accuracy, %", ACCURACY),
        "acc_from_5": (f"{name} accuracy from {GROWN} years of age on, %", ACCURACY),
        "answered": (f"{name} answered (not unsure), %", PERCENT),
        "acc_answered": (f"{name} accuracy of answered, %", ACCURACY),
        "auroc": (f"{name} AUROC", (1, 4)),
        "ece": (f"ECE of {probability_titles(task)[0]}", (1, 3)),
    }.get(metric)


def probability_titles(task: TaskInfo) -> tuple[str, str]:
    """Return the names of the probability whose calibration is measured, and of its event; see `calibration_pair`."""
    if task.kind == "binary":
        return task.columns[0], f"of {task.classes[1]} faces"
    return f"{task.name} confidence", "correct"


def format_number(value: float, form: Form, sign: str = "") -> str:
    """Return a value as text; `sign` is `+` to show the sign of positive values too."""
    factor, digits = form
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}" if math.isfinite(value) else NOTHING


def format_interval(found: Estimate, form: Form, sign: str = "") -> tuple[str, str]:
    """Return an estimate's value and its interval as text."""
    low, high = format_number(found.low, form, sign), format_number(found.high, form, sign)
    return format_number(found.value, form, sign), NOTHING if NOTHING in (low, high) else f"{low} to {high}"


@dataclass(frozen=True)
class MetricColumn:
    """A metric as a column of a table, or as two columns: its value and its interval.

    Attributes:
        name: Name of the metric, with its task.
        title: Header.
        form: Factor and decimals.
        sign: `+` to show the sign of positive values too.
        interval: Whether the interval is shown.
    """

    name: str
    title: str
    form: Form
    sign: str = ""
    interval: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """The headers of the columns."""
        return (self.title, "95 % interval") if self.interval else (self.title,)

    def cells(self, metrics: Mapping[str, Estimate]) -> tuple[str, ...]:
        """Return the cells of a row with these metrics; they are empty if this metric is not among them."""
        if self.name not in metrics:
            return ("",) * len(self.header)
        return format_interval(metrics[self.name], self.form, self.sign)[: len(self.header)]


def metric_column(task: TaskInfo, metric: str, form: Form | None = None, interval: bool = False) -> MetricColumn:
    """Return the column of a task's metric; `form` overrides the usual format."""
    title, usual = metric_title(task, metric) or (metric, (1, 3))
    return MetricColumn(f"{task.name}_{metric}", title, form or usual, "+" if metric == "bias" else "", interval)
