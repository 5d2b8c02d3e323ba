"""Read the curves of a training from the CSV logger's table, and name them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agegender.tasks.info import TaskInfo

# Metrics logged at the end of each epoch: `stage/name` -> epoch (from 1, ascending) -> value.
Curves = Mapping[str, Mapping[int, float]]

STAGES = ("train", "val")
# Display names by metric of a task. The first ones are common and shown first.
_TITLES = {
    "loss": "{name} loss",
    "mae": "{name} MAE{unit}",
    "cs": "CS@{limit}",
    "acc": "{name} accuracy",
    "mse": "{name} MSE{unit} squared",
    "auroc": "{name} AUROC",
    "class_acc": "{name} class accuracy",
}
_COMMON = ("loss", "mae", "cs", "acc")


def curve_titles(curves: Sequence[Curves], tasks: Sequence[TaskInfo]) -> dict[str, str]:
    """Return the display name of each metric that at least one run logged in both training and validation.

    The total loss comes first, then the losses of the tasks, then their common metrics in the order of the tasks.
    A metric that belongs to no task comes last, under the name that it was logged with.
    """
    names = {
        tag.split("/", 1)[1]
        for run in curves
        for tag in run
        if all(f"{stage}/{tag.split('/', 1)[1]}" in run for stage in STAGES)
    }
    return {name: title for _, name, title in sorted(_placed(name, tasks) for name in names)}


def _placed(name: str, tasks: Sequence[TaskInfo]) -> tuple[tuple[int, int, int], str, str]:
    """Return a metric's place among the curves, its name and its title."""
    for place, task in enumerate(tasks):
        metric = name.removeprefix(f"{task.name}_")
        kind = "cs" if re.fullmatch(r"cs[\d.]+", metric) else metric
        if metric != name and kind in _TITLES:
            unit = f", {task.unit}" if task.unit else ""
            title = _TITLES[kind].format(name=task.name, unit=unit, limit=metric.removeprefix("cs"))
            order = list(_TITLES).index(kind)
            common = kind in _COMMON
            return (
                (1 if order == 0 else 2 if common else 3, place if common else 0, order if common else 0),
                name,
                title,
            )
    return (0 if name == "loss" else 3, 0, 0), name, name


def read_curves(folder: Path) -> Curves:
    """Return the curves of a run from the CSV logger's table in its folder; unreadable rows are left out."""
    curves: dict[str, dict[int, float]] = {}
    for tag, epoch, value in _from_table(folder / "csv" / "metrics.csv"):
        if tag.startswith(tuple(f"{stage}/" for stage in STAGES)):
            curves.setdefault(tag, {})[epoch] = value
    return {tag: dict(sorted(curves[tag].items())) for tag in sorted(curves)}


def _from_table(path: Path) -> Iterator[tuple[str, int, float]]:
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            epoch = _number(row.get("epoch"))
            if math.isfinite(epoch):
                numbers = {tag: _number(text) for tag, text in row.items() if tag and text}
                yield from ((tag, int(epoch) + 1, value) for tag, value in numbers.items())


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except (TypeError, ValueError):
        return math.nan
