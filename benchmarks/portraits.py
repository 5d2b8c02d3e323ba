"""Evaluate weights on portraits from outside UTKFace: age and gender metrics with confidence intervals.

A folder holds images and `labels.csv`, a table as for `data=table`; an optional column `subset` adds metrics by subset.
The predictor detects the face (`detect=auto`; the largest one counts). The 95 % intervals are from a bootstrap over
people: images of one person are drawn together. `python -m benchmarks.portraits --data <folder>`.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.cli.main import report_errors
from agegender.data.index.table import read_table
from agegender.errors import require
from agegender.evaluation.statistics.bootstrap import Estimate, number_clusters, percentile_intervals, resample
from agegender.evaluation.statistics.metrics import Floats, Integers, weighted_means
from agegender.prediction.prediction import NO_FACE, Prediction
from agegender.prediction.predictor import Predictor
from benchmarks.heading import heading, named_weights

RESAMPLES = 2000
_POSE = re.compile(r"(.*_\d+)_\d+")  # london_001_03 and london_001_08: person 1, neutral and smiling
_COLUMNS = {  # name -> factor, decimals, and whether its interval is shown
    "age MAE": (1.0, 2, True),
    "bias": (1.0, 2, False),
    "constant": (1.0, 2, False),
    "in 80 %": (100.0, 1, False),
    "gender %": (100.0, 1, True),
    "answered %": (100.0, 1, False),
    "of these %": (100.0, 1, False),
}


@dataclass(frozen=True)
class Portraits:
    """Portraits of known age and gender.

    Attributes:
        paths: Paths relative to the folder.
        age: `[n]`, in years.
        gender: `[n]`, 0 = male, 1 = female.
        subset: `[n]`, values of the column `subset`; empty strings without it.
        left_out: Images in the table without both labels -> reason.
    """

    paths: list[str]
    age: Floats
    gender: Integers
    subset: NDArray[np.str_]
    left_out: dict[str, str]

    def taken(self, rows: NDArray[np.bool_]) -> Portraits:
        """Return the portraits selected by a mask `[n]`."""
        paths = [path for path, taken in zip(self.paths, rows, strict=True) if taken]
        return Portraits(paths, self.age[rows], self.gender[rows], self.subset[rows], self.left_out)


def person_of(path: str) -> str:
    """Return the part of a file name that identifies the person: the stem without a number that follows a number.

    `london_001_03.jpg` and `london_001_08.jpg` show the same person; `canada_003f.jpg`, `3dsk_ivan.jpg` and
    `3dsk_ivan2.jpg` show three people.
    """
    stem = os.path.splitext(path)[0]
    pose = _POSE.fullmatch(stem)
    return pose[1] if pose else stem


def read_portraits(folder: Path) -> Portraits:
    """Read a folder's `labels.csv`.

    Raises:
        AgeGenderError: There is no such table, it can't be read, or it has no row with both age and gender.
    """
    table = folder / "labels.csv"
    require(table.is_file(), f"--data {folder} holds no labels.csv; give a folder with images and a table of labels")
    listing = read_table(table, folder)
    subsets = _subsets(table)
    left_out = dict(listing.quarantine)
    for path, (age, gender, _) in listing.labels.items():
        if None in (age, gender):
            left_out[path] = "no age" if age is None else "no gender"
    paths = sorted(path for path in listing.labels if path not in left_out)
    require(bool(paths), f"{table} has no image with both age and gender; add labels, or give another folder")
    subset = np.array([subsets.get(os.path.abspath(folder / path), "") for path in paths], np.str_)
    ages, genders, _ = np.array([listing.labels[path] for path in paths], np.float64).T
    return Portraits(paths, ages, genders.astype(np.int64), subset, left_out)


def _subsets(table: Path) -> dict[str, str]:
    """Return the column `subset`, which `read_table` ignores, by absolute path of the image."""
    with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = [name.strip().casefold() for name in next(reader)]
        if "subset" not in header:
            return {}
        path, subset = header.index("path" if "path" in header else "file"), header.index("subset")
        rows = [row for row in reader if len(row) > max(path, subset)]
    return {os.path.abspath(table.parent / row[path].strip()): row[subset].strip() for row in rows}


def parts(portraits: Portraits) -> dict[str, NDArray[np.bool_]]:
    """Return a mask `[n]` of the portraits in each part: all, each subset, each gender; empty ones are left out."""
    found = {"all": np.ones(len(portraits.paths), dtype=bool)}
    found |= {name: portraits.subset == name for name in dict.fromkeys(portraits.subset.tolist()) if name}
    found |= {"men": portraits.gender == 0, "women": portraits.gender == 1}
    return {name: rows for name, rows in found.items() if rows.any()}


def measure(
    portraits: Portraits, answers: Sequence[Prediction], constant: float, resamples: int = RESAMPLES
) -> dict[str, list[Estimate]]:
    """Compute the metrics of each part, in the order of `_COLUMNS`.

    Args:
        portraits: Portraits in which a face was found.
        answers: Prediction for the largest face of each portrait.
        constant: Age of the constant baseline, in years.
        resamples: Number of bootstrap resamples.
    """
    table = [(one.age, one.age_low, one.age_high, one.p_female) for one in answers]
    age, low, high, p_female = np.array(table, dtype=np.float64).T
    inside = (low <= portraits.age) & (portraits.age <= high)
    right = (p_female > 0.5) == (portraits.gender == 1)
    answered = np.array([one.gender in ("male", "female") for one in answers])  # the rest is "unsure"
    every, stated = np.ones(len(age), dtype=bool), ~np.isnan(low)
    columns: list[tuple[NDArray[np.generic], NDArray[np.bool_]]] = [
        (np.abs(age - portraits.age), every),
        (age - portraits.age, every),
        (np.abs(constant - portraits.age), every),
        (inside, stated),
        (right, every),
        (answered, every),
        (right, answered),
    ]
    own = parts(portraits)
    values = np.column_stack([value.astype(np.float64) for _ in own for value, _ in columns])
    within = np.column_stack([rows & counted for rows in own.values() for _, counted in columns])

    def statistics(weights: Floats) -> Floats:
        return weighted_means(weights, values, within)

    clusters = number_clusters([person_of(path) for path in portraits.paths])
    found = percentile_intervals(
        statistics(np.ones((1, len(age))))[0], resample(statistics, clusters, resamples, seed=0)
    )
    count = len(columns)
    return {name: found[count * i : count * (i + 1)] for i, name in enumerate(own)}


def show(figures: dict[str, list[Estimate]], portraits: Portraits) -> str:
    """Return the table, with a line for each part."""
    own = parts(portraits)
    widths = [24 if interval else 12 for _, _, interval in _COLUMNS.values()]
    heads = (f"{name:>{width}}" for name, width in zip(_COLUMNS, widths, strict=True))
    lines = [f"{'':<8}{'pictures':>10}{'people':>8}{''.join(heads)}"]
    for name, row in figures.items():
        people = len({person_of(path) for path in portraits.taken(own[name]).paths})
        cells = (_cell(one, *form) for one, form in zip(row, _COLUMNS.values(), strict=True))
        ends = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{name:<8}{own[name].sum():>10}{people:>8}{ends}")
    return "\n".join(lines)


def _cell(one: Estimate, unit: float, digits: int, interval: bool) -> str:
    if np.isnan(one.value):
        return "-"
    value, low, high = (f"{unit * number:.{digits}f}" for number in (one.value, one.low, one.high))
    return f"{value} ({low} to {high})" if interval else value


def _told(reasons: dict[str, str], what: str) -> list[str]:
    """Return a line with the number of excluded images and an example for each reason; empty if there are none."""
    if not reasons:
        return []
    examples = {reason: path for path, reason in reversed(reasons.items())}
    return [f"{what}: {len(reasons)} ({'; '.join(f'{path}: {reason}' for reason, path in examples.items())})"]


def main() -> None:
    """Print the table and the excluded images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and labels.csv")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--tta", default="none", choices=("none", "flip"))
    chosen = parser.parse_args()
    portraits = read_portraits(chosen.data)
    predictor = Predictor(chosen.weights, "cpu", chosen.tta)
    print(heading("portraits", named_weights(chosen.weights, predictor.weights)), flush=True)
    answers = predictor([chosen.data / path for path in portraits.paths])
    errors = {path: of[0].error for path, of in zip(portraits.paths, answers, strict=True) if of[0].error is not None}
    found, several = len(portraits.paths) - len(errors), sum(len(of) > 1 for of in answers)
    print(f"a face found in {found} of {len(portraits.paths)} portraits; more than one in {several}")
    faceless = {path: reason for path, reason in errors.items() if reason == NO_FACE}
    unread = {path: reason for path, reason in errors.items() if reason != NO_FACE}
    lines = _told(faceless, "not counted, without a face") + _told(unread, "not counted, unreadable")
    print("\n".join(lines + _told(portraits.left_out, "not counted, without both labels")), end="\n" * bool(lines))
    require(found > 0, f"no face was found in any portrait of {chosen.data}: there is nothing to evaluate")
    constant = float(np.median(portraits.age))
    kept = portraits.taken(np.array([path not in errors for path in portraits.paths]))
    figures = measure(kept, [of[0] for of in answers if of[0].error is None], constant)
    print(
        f"ages in years, 95 % intervals over people; constant: MAE of always predicting {constant:g}, the true median"
    )
    print(
        "answered %: gender is not `unsure`; of these %: accuracy among them; gender %: accuracy at a threshold of 0.5"
    )
    print(show(figures, kept))


if __name__ == "__main__":
    with report_errors():
        main()
