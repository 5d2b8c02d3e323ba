"""Where answers go: a table for people, CSV or JSON for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agegender.errors import AgeGenderError
from agegender.files import write_whole
from agegender.prediction.predictor import Prediction

COLUMNS = tuple(field.name for field in fields(Prediction))
DIGITS = {"age": 2, "age_std": 2, "age_low": None, "age_high": None, "p_female": 4}


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Returns an answer's columns, rounded to what they are worth."""
    row = asdict(prediction)
    return row | {name: round(row[name], digits) for name, digits in DIGITS.items() if row[name] is not None}


def check_output(out: Path) -> None:
    """Refuses an output file that could not be written, before any work is done.

    Raises:
        AgeGenderError: Its name ends in neither .csv nor .json, or its folder doesn't exist.
    """
    if out.suffix.lower() not in (".csv", ".json"):
        raise AgeGenderError(f"out={out} must end in .csv or .json")
    if not out.parent.is_dir():
        raise AgeGenderError(f"out={out}: the folder {out.parent} does not exist; make it first")


def write_file(out: Path, predictions: Iterable[Prediction]) -> tuple[int, int]:
    """Writes answers as CSV (header and a row each) or JSON (a list of objects), by the name's ending.

    Returns:
        How many pictures there were, and how many of them failed.

    Raises:
        AgeGenderError: The file can't be written.
    """
    count = failed = 0
    try:
        text = {"mode": "w", "newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        form = _csv if out.suffix.lower() == ".csv" else _json
        with write_whole(out, **text) as file, form(file) as write:
            for prediction in predictions:
                write(as_row(prediction))
                count, failed = count + 1, failed + (prediction.error is not None)
    except OSError as error:
        raise AgeGenderError(f"can't write out={out} ({error.strerror})") from None
    return count, failed


@contextmanager
def _csv(file: IO[str]) -> Iterator[Any]:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    yield writer.writerow


@contextmanager
def _json(file: IO[str]) -> Iterator[Any]:
    separators = iter(["[\n  "])

    def write(row: dict[str, Any]) -> None:
        file.write(next(separators, ",\n  ") + json.dumps(row))

    yield write
    file.write(next(separators, "\n") + "]\n" if file.tell() else "[]\n")


def print_table(predictions: Iterable[Prediction]) -> tuple[int, int]:
    """Prints answers for people; returns how many pictures there were, and how many of them failed."""
    table = Table("picture", "age", "gender", "p(female)")
    table.columns[0].overflow = "fold"
    rows = list(predictions)
    for row in rows:
        if row.error is not None:
            table.add_row(_shown(row.path), Text(row.error, "red"))
        else:
            spread = "" if row.age_std is None else f" ± {row.age_std:.0f}"
            table.add_row(_shown(row.path), f"{row.age:.0f}{spread}", row.gender, f"{row.p_female:.2f}")
    Console().print(table)
    return len(rows), sum(row.error is not None for row in rows)


def _shown(path: str) -> Text:
    """A name to the letter, never as Rich's markup; what no terminal should be sent (control codes, bytes) escaped."""
    letters = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in path)
    return Text("".join(letters))
