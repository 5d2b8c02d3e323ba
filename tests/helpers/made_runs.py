"""Run folders made by hand, with known predictions, for tests of their readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Made:
    """One prediction and its labels; `photograph` is the duplicate group, by default the file's name.

    An `age`, `gender` or `group` of "" is a missing label.
    """

    name: str
    age: int | str = 30
    age_pred: float = 30.0
    gender: int | str = 0
    p_female: float = 0.1
    group: int | str = 0
    age_std: str = ""
    interval: tuple[float, float] | None = None
    photograph: str = ""


def make_run(
    folder: Path,
    answers: Sequence[Made],
    metrics: dict[str, Any] | None = None,
    *,
    index: bool = True,
    age_std: bool = True,
    pictures: str = "faces",
) -> Path:
    """Writes `predictions.csv`, `metrics.json` and, with `index`, `index.csv`; returns the folder."""
    folder.mkdir(parents=True)
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        stated = ["age_std", "age_low", "age_high"] if age_std else []
        writer.writerow(["path", "age", "age_pred", *stated, "gender", "p_female", "group"])
        for made in answers:
            spread = [made.age_std, *(made.interval or ("", ""))] if age_std else []
            answer = (made.age, made.age_pred, *spread, made.gender, made.p_female, made.group)
            writer.writerow([f"{pictures}/{made.name}", *answer])
    if index:
        with (folder / "index.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "split", "duplicate_group"])
            writer.writerows([made.name, "test", made.photograph or made.name] for made in answers)
    figures = {"split_fingerprint": "abc123", "epochs": 0, "best_epoch": None} | (metrics or {})
    (folder / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
    return folder
