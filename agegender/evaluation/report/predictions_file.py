"""Read a run's `predictions.csv`: labels and predictions of its test images, by task, and the copies among them."""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.evaluation.label_noise.measure import LabelNoise, label_noise
from agegender.evaluation.statistics.bootstrap import number_clusters
from agegender.evaluation.statistics.metrics import Floats, Integers
from agegender.system.csv_escape import unescape_formula
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo, read_tasks


@dataclass(frozen=True)
class RunPredictions:
    """A run's labels and predictions for its n test images, in the order of their file names.

    Attributes:
        paths: Path of each image at the time of the test.
        names: Name of each image in the index: its path relative to the data's folder.
        tasks: The run's tasks.
        labels: `[n]` by label: numbers, or positions in the label's `classes`; NaN where unknown.
        columns: Predictions `[n]` by the tasks' columns; NaN where no standard deviation or interval is predicted.
        classes: Names of the classes by label, for labels that are classes.
        clusters: `[n]`, cluster (photograph) of each image, numbered from 0.
        duplicates_known: Whether copies are known; if not, every file is a cluster of its own.
        tolerances: Tolerance of the cumulative score by task, for tasks that have one.
        label_noise: Disagreement between the labels of copies by label, over all images of the run's index; without
            the labels that no two copies have.
    """

    paths: list[str]
    names: list[str]
    tasks: tuple[TaskInfo, ...]
    labels: dict[str, Floats]
    columns: dict[str, Floats]
    classes: dict[str, tuple[str, ...]]
    clusters: Integers
    duplicates_known: bool
    tolerances: dict[str, float] = field(default_factory=dict)
    label_noise: dict[str, LabelNoise] = field(default_factory=dict)

    def known(self, task: TaskInfo) -> NDArray[np.bool_]:
        """Return the mask `[n]` of the images whose label of a task is known."""
        return ~np.isnan(self.labels[task.label])


def retest() -> str:
    """Return the remedy for a damaged file of a run."""
    return f"measure the run again with {script('train')} fit=false weights=<its folder>"


def read_predictions(folder: Path, results: Mapping[str, Any]) -> RunPredictions:
    """Read `predictions.csv`, and the clusters of copies from `index.csv`.

    Args:
        folder: Folder of the run.
        results: Contents of `metrics.json`: `tasks`, `classes`, and `data`, the folder of the images.

    Raises:
        AgeGenderError: A file is damaged; the message names the line of `predictions.csv`.
    """
    path = folder / "predictions.csv"
    table = _rows(path)
    require(bool(table), f"{path} holds no predictions; {retest()}")
    tasks, classes = _read_description(folder / "metrics.json", results)
    predicted = dict(zip(_in_order(tasks, "test_columns"), _in_order(tasks, "columns"), strict=True))
    others = (column for column in table[0] if column not in {"path", None, *predicted})
    labels = list(dict.fromkeys([*(task.label for task in tasks), *others]))
    rules, rows = _rules(tasks, labels, classes), []
    for line, row in enumerate(table, start=2):
        try:
            rows.append((unescape_formula(row["path"]), _read_row(row, rules, tasks)))
        except (KeyError, ValueError) as problem:
            reason = f"no column {problem}" if isinstance(problem, KeyError) else str(problem)
            raise AgeGenderError(f"{path} is damaged (line {line}: {reason}); {retest()}") from None
    index = _index_rows(folder / "index.csv")
    known = {unescape_formula(row["file"]): unescape_formula(row["duplicate_group"]) for row in index}
    named = sorted((_name(path, str(results.get("data", "")), known), path, numbers) for path, numbers in rows)
    names, paths = [row[0] for row in named], [row[1] for row in named]
    found = dict(zip(rules, np.array([row[2] for row in named], dtype=np.float64).T, strict=True))
    return RunPredictions(
        paths=paths,
        names=names,
        tasks=tasks,
        labels={label: found[label] for label in labels},
        columns={column: found[test_column] for test_column, column in predicted.items()},
        classes=classes,
        # A file that is not in the index is a cluster of its own; the trailing slash avoids clashes with group names.
        clusters=number_clusters([known.get(name, f"{path}/") for name, path in zip(names, paths, strict=True)]),
        duplicates_known=bool(known),
        tolerances=_tolerances(results, tasks),
        label_noise=_label_noise(folder / "index.csv", index, labels, classes),
    )


def _in_order(tasks: Sequence[TaskInfo], names: str) -> list[str]:
    return [column for task in tasks for column in getattr(task, names)]


def _read_description(
    path: Path, results: Mapping[str, Any]
) -> tuple[tuple[TaskInfo, ...], dict[str, tuple[str, ...]]]:
    """Return the tasks of a run, and the class names by label."""
    try:
        tasks = read_tasks(results.get("tasks", ()))
        classes = {label: tuple(map(str, names)) for label, names in results.get("classes", {}).items()}
    except (AgeGenderError, AttributeError, TypeError):
        tasks = ()
    require(bool(tasks), f"{path} is damaged, or of another version (it describes no tasks); {retest()}")
    return tasks, classes | {task.label: task.classes for task in tasks if task.classes}


def _tolerances(results: Mapping[str, Any], tasks: Sequence[TaskInfo]) -> dict[str, float]:
    """Return the tolerance k of each task whose cumulative score `cs<k>` was measured."""
    named = (re.fullmatch(r"(?:val|test)/(.+)_cs(\d+(?:\.\d+)?)", name) for name in results)
    found = {match[1]: float(match[2]) for match in named if match}
    return {task.name: found[task.name] for task in tasks if task.name in found}


def _name(path: str, data: str, known: Mapping[str, str]) -> str:
    """Return a file's name in the index: its path relative to the data's folder or as in the table, else its basename.

    Args:
        path: Path of the file in `predictions.csv`.
        data: Folder of the images.
        known: Names in the index.
    """
    inside = path.removeprefix(os.path.join(data, ""))
    return inside if inside in known else os.path.basename(path)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        # A path may hold bytes that are not UTF-8; `surrogateescape` preserves them.
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise AgeGenderError(f"{path} can't be read ({error.strerror}); give a run's folder (logs/...)") from None
    except csv.Error as error:
        raise AgeGenderError(f"{path} is damaged ({error}); {retest()}") from None


def _rules(
    tasks: Sequence[TaskInfo], labels: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> dict[str, Callable[[float], bool]]:
    """Return a test of the values that a column may hold, by column; NaN is an empty cell."""

    def is_label(count: int | None) -> Callable[[float], bool]:
        return lambda value: math.isnan(value) or (math.isfinite(value) if count is None else value in range(count))

    rules = {label: is_label(len(classes[label]) if label in classes else None) for label in labels}
    for task in tasks:
        if task.kind == "number":
            value, std, low, high, *tails = task.test_columns
            rules[value] = math.isfinite
            rules[std] = lambda std: not std < 0 and std != math.inf
            rules[low] = rules[high] = lambda end: not math.isinf(end)
            rules |= dict.fromkeys(tails, lambda probability: not (probability < 0 or probability > 1))
        else:
            rules |= dict.fromkeys(task.test_columns, lambda probability: 0 <= probability <= 1)
    return rules


def _read_row(
    row: Mapping[str, str | None], rules: Mapping[str, Callable[[float], bool]], tasks: Sequence[TaskInfo]
) -> list[float]:
    if None in row.values():
        raise ValueError("fewer columns than the header")
    numbers = {name: float(row[name] or "nan") for name in rules}
    for name, fits in rules.items():
        if not fits(numbers[name]):
            raise ValueError(f"{name} can't be {numbers[name]:g}")
    for _, _, low, high in (task.test_columns[:NUMBER_COLUMNS] for task in tasks if task.kind == "number"):
        if numbers[low] > numbers[high] or math.isnan(numbers[low]) != math.isnan(numbers[high]):
            raise ValueError(f"an interval can't be from {numbers[low]:g} to {numbers[high]:g}")
    return list(numbers.values())


def _index_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of `index.csv`; empty if there is no such file, or if it has no duplicate groups."""
    rows = _rows(path) if path.is_file() else []
    if not rows or not {"file", "duplicate_group"} <= set(rows[0]):  # written by a version before this column name
        return []
    whole = all(None not in (row["file"], row["duplicate_group"]) for row in rows)
    require(whole, f"{path} is damaged (a line is cut short); {retest()}")
    return rows


def _label_noise(
    path: Path, index: Sequence[Mapping[str, str]], labels: Sequence[str], classes: Mapping[str, Sequence[str]]
) -> dict[str, LabelNoise]:
    """Return the label noise by label, from the copies of all images in `index.csv`."""
    given = [label for label in labels if index and label in index[0]]
    rules, files = _rules((), given, classes), Counter(row["duplicate_group"] for row in index)
    copies = [row for row in index if files[row["duplicate_group"]] > 1] if given else []
    try:
        rows = [_read_row({label: row[label] for label in given}, rules, ()) for row in copies]
    except ValueError as problem:
        raise AgeGenderError(f"{path} is damaged ({problem}); {retest()}") from None
    photographs = number_clusters([row["duplicate_group"] for row in copies])
    columns = zip(given, np.array(rows, dtype=np.float64).T, strict=True) if rows else ()
    found = {label: label_noise(column, photographs, classes=label in classes) for label, column in columns}
    return {label: noise for label, noise in found.items() if noise is not None}
