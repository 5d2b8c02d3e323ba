"""Read the curves of a training from the CSV logger's table, and name them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agegender.evaluation.html.metric_format import metric_title
from agegender.tasks.info import TaskInfo

# Metrics logged at the end of each epoch: `stage/name` -> epoch (from 1, ascending) -> value.
Curves = Mapping[str, Mapping[int, float]]

STAGES = ("train", "val")
_FIRST = ("loss", "mae", "cs", "acc")  # metrics of a task that are shown before its others


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
    placed = {name: ((0 if name == "loss" else 3, 0, 0), name) for name in names}
    for place, task in enumerate(tasks):
        for name in names:
            metric = name.removeprefix(f"{task.name}_")
            if metric != name and (title := metric_title(task, metric)):
                order = next((i for i, first in enumerate(_FIRST) if re.fullmatch(f"{first}[\\d.]*", metric)), None)
                key = (3, 0, 0) if order is None else (min(order, 1) + 1, place, order)
                placed[name] = key, title[0].removesuffix(", %")
    return {name: placed[name][1] for name in sorted(names, key=lambda name: (placed[name][0], name))}


def read_curves(folder: Path) -> Curves:
    """Return the curves of a run from the CSV logger's table in its folder; unreadable rows are left out."""
    curves: dict[str, dict[int, float]] = {}
    for tag, epoch, value in _from_table(folder / "csv" / "metrics.csv"):
        if tag.startswith(tuple(f"{stage}/" for stage in STAGES)) and not tag.endswith("_step"):
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
