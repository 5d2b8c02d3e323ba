"""Find finished runs and read their files: metrics, predictions, curves, and the copies among the test images."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.utkface import GROUPS, MISSING
from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.evaluation.report.curves import Curves, read_curves
from agegender.evaluation.robustness.results_file import read_robustness
from agegender.evaluation.statistics.bootstrap import number_clusters
from agegender.evaluation.statistics.metrics import Floats, Integers
from agegender.system.csv_escape import unescape_formula


@dataclass(frozen=True)
class RunPredictions:
    """A run's labels and predictions for its n test images, in the order of their file names.

    Attributes:
        paths: Path of each image at the time of the test.
        names: Name of each image in the index: its path relative to the data's folder.
        age: `[n]`, years; NaN where unknown.
        age_pred: `[n]`, years.
        age_std: `[n]`, predicted standard deviation, years; NaN where none is predicted.
        age_low: `[n]`, lower end of the predicted 80 % interval, years; NaN where none is predicted.
        age_high: `[n]`, upper end of the interval, years; NaN where none is predicted.
        gender: `[n]`, 0 = male, 1 = female; `MISSING` (-1) where unknown.
        p_female: `[n]`, from 0 to 1.
        group: `[n]`, indices into `groups`; `MISSING` (-1) where unknown.
        clusters: `[n]`, cluster (photograph) of each image, numbered from 0.
        duplicates_known: Whether copies are known; if not, every file is a cluster of its own.
        groups: Names of the groups.
        min_confidence: Probability of the likelier gender below which the prediction is "unsure".
    """

    paths: list[str]
    names: list[str]
    age: Floats
    age_pred: Floats
    age_std: Floats
    age_low: Floats
    age_high: Floats
    gender: Integers
    p_female: Floats
    group: Integers
    clusters: Integers
    duplicates_known: bool
    groups: tuple[str, ...] = GROUPS
    min_confidence: float = 0.5

    @property
    def has_age(self) -> NDArray[np.bool_]:
        """Mask `[n]` of the images with a known age."""
        return ~np.isnan(self.age)

    @property
    def has_gender(self) -> NDArray[np.bool_]:
        """Mask `[n]` of the images with a known gender."""
        return np.asarray(self.gender != MISSING)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, `metrics.json`, predictions and curves, and `robustness.json` if there is one."""

    folder: Path
    results: dict[str, Any]
    answers: RunPredictions
    curves: Curves
    robustness: dict[str, Any] | None = None


def find_runs(given: str | Sequence[str] | None, logs: Path = Path("logs")) -> list[Path]:
    """Resolve the setting `run` to run folders.

    Args:
        given: A run's folder, a folder of runs (its newest tested run is taken), a list of them, or None for the newest
            tested run below `logs`.
        logs: Root folder of all runs.

    Raises:
        AgeGenderError: There is no such run, or it was not tested.
    """
    if not given:
        found = _tested(logs)
        require(bool(found), f"no tested run below {logs.resolve()}; train one ({script('train')}) or give run=...")
        return found[-1:]
    return [_find_run(Path(name)) for name in ([given] if isinstance(given, str) else given)]


def _find_run(path: Path) -> Path:
    require(path.exists(), f"run={path} does not exist; give a run's folder (logs/...)")
    require(path.is_dir(), f"run={path} is a file; give the folder of the run")
    if (path / "predictions.csv").is_file():
        return path
    runs = _tested(path)
    if runs:
        return runs[-1]
    if (path / "checkpoints").is_dir() or (path / "metrics.json").is_file():
        raise AgeGenderError(_untested(path))
    raise AgeGenderError(f"{path} holds no predictions.csv, and no folder in it does; give a run's folder (logs/...)")


def _untested(folder: Path) -> str:
    return (
        f"{folder} has no predictions.csv: run its test first, {script('train')} fit=false weights={folder}, and "
        "report on the folder that this makes"
    )


def _tested(folder: Path) -> list[Path]:
    """Return the tested runs below a folder, the newest last."""
    found = sorted(folder.glob("**/predictions.csv"), key=lambda path: path.stat().st_mtime)
    return [path.parent for path in found]


def read_run(folder: Path) -> Run:
    """Read the files of a run that a report needs; only `predictions.csv` is required.

    Raises:
        AgeGenderError: A file is missing or damaged.
    """
    results = _read_results(folder / "metrics.json")
    answers = read_answers(folder, str(results.get("data", "")), tuple(results.get("groups", GROUPS)))
    least = results.get("min_confidence", 0.5)  # runs of versions without min_confidence predicted every gender
    fits = isinstance(least, float) and 0.5 <= least <= 1
    require(fits, f"{folder / 'metrics.json'} is damaged (min_confidence is {least!r}); {_again()}")
    answers = replace(answers, min_confidence=least)
    if results.get("duplicates") == "none":  # copies were not searched for, so index.csv lists none
        answers = replace(answers, duplicates_known=False)
    return Run(folder, results, answers, read_curves(folder), read_robustness(folder))


def _read_results(path: Path) -> dict[str, Any]:
    if not path.is_file():  # the run stopped between its test and its end
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgeGenderError(f"{path} is damaged ({error}); {_again()}") from None
    require(isinstance(results, dict), f"{path} is damaged (it holds no object); {_again()}")
    return dict(results)


def _again() -> str:
    return f"measure the run again with {script('train')} fit=false weights=<its folder>"


def read_answers(folder: Path, data: str = "", groups: tuple[str, ...] = GROUPS) -> RunPredictions:
    """Read `predictions.csv`, and the clusters of copies from `index.csv`.

    Args:
        folder: Folder of the run.
        data: Folder of the images, the prefix of the paths in `predictions.csv`.
        groups: Names of the groups.

    Raises:
        AgeGenderError: `predictions.csv` is missing or damaged; the message names the line.
    """
    path = folder / "predictions.csv"
    require(path.is_file(), _untested(folder))
    rows: list[tuple[str, list[float]]] = []
    for line, row in enumerate(_rows(path), start=2):
        try:
            rows.append((unescape_formula(row["path"]), _read_row(row, len(groups))))
        except (KeyError, ValueError) as problem:
            reason = f"no column {problem}" if isinstance(problem, KeyError) else str(problem)
            raise AgeGenderError(f"{path} is damaged (line {line}: {reason}); {_again()}") from None
    require(bool(rows), f"{path} holds no predictions; {_again()}")
    known = _duplicate_groups(folder / "index.csv")
    named = sorted((_name(path, data, known), path, numbers) for path, numbers in rows)
    names, paths = [row[0] for row in named], [row[1] for row in named]
    columns = np.array([row[2] for row in named], dtype=np.float64).T
    age, age_pred, gender, p_female, group, age_std, age_low, age_high = columns
    return RunPredictions(
        paths=paths,
        names=names,
        age=age,
        age_pred=age_pred,
        age_std=age_std,
        age_low=age_low,
        age_high=age_high,
        gender=gender.astype(np.int64),
        p_female=p_female,
        group=group.astype(np.int64),
        # A file that is not in the index is a cluster of its own; the trailing slash avoids clashes with group names.
        clusters=number_clusters([known.get(name, f"{path}/") for name, path in zip(names, paths, strict=True)]),
        duplicates_known=bool(known),
        groups=groups,
    )


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
        raise AgeGenderError(f"{path} is damaged ({error}); {_again()}") from None


def _read_row(row: Mapping[str, str | None], groups: int) -> list[float]:
    if None in row.values():
        raise ValueError("fewer columns than the header")
    # an empty cell is an unknown label
    age = float(row["age"] or "nan")
    age_pred, p_female = (float(row[name] or "") for name in ("age_pred", "p_female"))
    gender, group = (float(row[name] or MISSING) for name in ("gender", "group"))
    for name, value, fits in (
        ("age", age, not row["age"] or 0 <= age <= 1000),
        ("age_pred", age_pred, np.isfinite(age_pred)),
        ("gender", gender, not row["gender"] or gender in (0, 1)),
        ("p_female", p_female, 0 <= p_female <= 1),
        ("group", group, not row["group"] or group in range(groups)),
    ):
        if not fits:
            raise ValueError(f"{name} can't be {value:g}")
    std, low, high = (float(row.get(name) or "nan") for name in ("age_std", "age_low", "age_high"))
    if std < 0 or std == np.inf:
        raise ValueError(f"age_std can't be {std:g}")
    if low > high or np.isnan(low) != np.isnan(high):
        raise ValueError(f"an interval can't be from {low:g} to {high:g}")
    return [age, age_pred, gender, p_female, group, std, low, high]


def _duplicate_groups(path: Path) -> dict[str, str]:
    """Return the duplicate group of each file in `index.csv`; empty if there is no such file or column."""
    if not path.is_file():
        return {}
    rows = _rows(path)
    if not rows or not {"file", "duplicate_group"} <= set(rows[0]):  # written by a version before this column name
        return {}
    return {unescape_formula(row["file"]): unescape_formula(row["duplicate_group"]) for row in rows}
