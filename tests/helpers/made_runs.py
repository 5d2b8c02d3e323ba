"""Run folders made by hand, with known predictions, for tests of their readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agegender.tasks.info import TaskInfo

AGE = TaskInfo(
    "age", "number", "age", ("age", "age_std", "age_low", "age_high"), (2, 2, None, None), unit="years"
)  # fmt: skip
GENDER = TaskInfo("gender", "binary", "gender", ("p_female",), (4,), ("male", "female"))
SMILE = TaskInfo("smile", "binary", "smile", ("p_smile",), (4,), ("no", "yes"))
HEIGHT = TaskInfo(
    "height", "number", "height", ("height", "height_std", "height_low", "height_high"), (1, 1, 1, 1), unit="cm"
)
NAMES = ("White", "Black", "Asian", "Indian", "Others")
ETHNICITY = TaskInfo(
    "ethnicity", "classes", "group", tuple(f"p_{name}" for name in NAMES), (4,) * 5, NAMES, min_confidence=0.2
)


@dataclass(frozen=True)
class Made:
    """One prediction and its labels; `photograph` is the duplicate group, by default the file's name.

    A label of "" is missing. `more` holds the labels and columns of further tasks, by the names in `predictions.csv`.
    """

    name: str
    age: float | str = 30
    age_pred: float = 30.0
    gender: int | str = 0
    p_female: float = 0.1
    group: int | str = 0
    age_std: str = ""
    interval: tuple[float, float] | None = None
    photograph: str = ""
    more: dict[str, float | str] = field(default_factory=dict)

    def cell(self, column: str) -> object:
        """The cell in a column of `predictions.csv`."""
        low, high = self.interval or ("", "")
        return {"age_low": low, "age_high": high, **vars(self), **self.more}.get(column, "")


def make_run(
    folder: Path,
    made: Sequence[Made],
    metrics: dict[str, Any] | None = None,
    *,
    tasks: Sequence[TaskInfo] = (AGE, GENDER),
    labels: Sequence[str] = ("age", "gender", "group"),
    min_confidence: float = 0.5,
    index: bool = True,
    pictures: str = "faces",
) -> Path:
    """Writes `predictions.csv`, `metrics.json` and, with `index`, `index.csv`; returns the folder.

    `min_confidence` is that of gender, `labels` are those of the index.
    """
    folder.mkdir(parents=True)
    columns = dict.fromkeys(column for task in tasks for column in (task.label, *task.test_columns))
    header = [*columns, *(label for label in labels if label not in columns)]
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *header])
        writer.writerows([f"{pictures}/{one.name}", *(one.cell(column) for column in header)] for one in made)
    if index:
        with (folder / "index.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *labels, "split", "duplicate_group"])
            writer.writerows(
                [one.name, *(one.cell(label) for label in labels), "test", one.photograph or one.name] for one in made
            )
    classes = {"gender": list(GENDER.classes), "group": list(NAMES)}
    figures = {
        "tasks": [
            task.to_dict() | ({"min_confidence": min_confidence} if task.name == "gender" else {}) for task in tasks
        ],
        "classes": {label: names for label, names in classes.items() if label in header},
        "test/age_cs5": None,
        "split_fingerprint": "abc123",
        "epochs": 0,
        "best_epoch": None,
    }
    (folder / "metrics.json").write_text(json.dumps(figures | (metrics or {})), encoding="utf-8")
    return folder
