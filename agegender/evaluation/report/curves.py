"""The curves of a training, as the CSV logger left them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Metrics logged at the end of each epoch: `stage/name` -> epoch (from 1, ascending) -> value.
Curves = Mapping[str, Mapping[int, float]]

STAGES = ("train", "val")
_FIRST = ("loss", "age_loss", "gender_loss", "age_mae", "age_cs5", "gender_acc")


def curve_names(curves: Sequence[Curves]) -> list[str]:
    """Return the metrics that at least one run logged in both training and validation; the common ones come first."""
    names = {
        tag.split("/", 1)[1]
        for run in curves
        for tag in run
        if all(f"{stage}/{tag.split('/', 1)[1]}" in run for stage in STAGES)
    }
    return sorted(names, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))


def read_curves(folder: Path) -> Curves:
    """Reads the curves from a run's folder, out of the CSV logger's table; what can't be read is no curve."""
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
