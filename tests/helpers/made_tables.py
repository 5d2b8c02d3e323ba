"""Label tables made by hand, for tests of their readers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from agegender.data.index.utkface import GENDERS, GROUPS, parse_name


def write_table(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Writes rows of equal columns as CSV and returns the file."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(faces: Path) -> list[dict[str, object]]:
    """Returns the labels in the names of drawn faces as complete table rows, with categories in words."""
    rows: list[dict[str, object]] = []
    for name in sorted(path.name for path in faces.iterdir()):
        label = parse_name(name)
        words = {"gender": GENDERS[label.gender], "group": GROUPS[label.group]}
        rows.append({"path": name, "age": label.age, **words})
    return rows


def half_labeled(faces: Path) -> list[dict[str, object]]:
    """Returns the same rows without every second age, and without every third gender of the others."""
    rows = rows_of(faces)
    for number, row in enumerate(rows):
        if number % 2:
            row["age"] = ""
        elif number % 3 == 0:
            row["gender"] = ""
    return rows
