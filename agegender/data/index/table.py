"""Labels from a CSV or Parquet table, checked as strictly as UTKFace's file names."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agegender.data.index.split import SPLITS, UNUSED
from agegender.data.index.utkface import CLASSES, GENDERS, GROUPS, LABELS, LabelTable
from agegender.errors import AgeGenderError, missing_extra, require

RESERVED = ("path", "file", "split", "duplicate_group", "sha256")  # columns of tables and of index.csv, no labels
SPLIT_ALIASES = {side: side for side in (*SPLITS, UNUSED)} | {"valid": "val", "validation": "val", "": UNUSED}
UNKNOWN = ("", "na", "n/a", "nan", "none", "null", "unknown")  # cells that mean a missing label
MAX_LABEL_AGE = 999  # years; limit of UTKFace's names
MAX_NUMBER = float(np.finfo(np.float32).max)
MOST_GROUPS = 100  # a column with more values is not a group
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)  # an integer in a float column, as pandas writes it


Label = float | str | None  # a number or a class's code; the text of a group until all groups are known; None: missing
Reader = Callable[[str], Label]


class _Row(NamedTuple):
    """Parsed row of one file: its labels in the order of the readers, and its split."""

    labels: tuple[Label, ...]
    split: str


class _QuarantinedRowError(ValueError):
    """A row that can't be parsed without guessing; the message is the reason."""


def check_ending(table: Path) -> None:
    """Refuse a table whose suffix is neither .csv nor .parquet."""
    fits = table.suffix.lower() in (".csv", ".parquet")
    require(fits, f"data.table={table} must end in .csv or .parquet")


def read_table(
    table: Path,
    folder: Path,
    age_range: Sequence[int] = (0, 120),
    labels: Mapping[str, Sequence[str] | None] | None = None,
) -> LabelTable:
    """Read a table of files and labels.

    The columns are `path` (or `file`), `age`, `gender`, `group`, `split` and those of further labels, in any order and
    case; others are ignored. One label is enough, and a label's cell may be empty. A row that can't be parsed without
    guessing is quarantined; so is a file with conflicting rows.

    Args:
        table: CSV (UTF-8, commas, a header line) or Parquet.
        folder: Base of relative paths.
        age_range: Lowest and highest accepted age in years, inclusive.
        labels: Labels of tasks, and their classes; None for a number. Without classes for `group`, its texts are the
            classes.

    Returns:
        The rows by path from the folder; `splits` is None without a split column.

    Raises:
        AgeGenderError: The file is missing, malformed or lacks a column, or a split is unknown.
    """
    check_ending(table)
    require(table.is_file(), f"data.table={table}: there is no such file; give the table that lists the images")
    readers = _readers(labels or {}, age_range)
    wanted = dict.fromkeys(("age", "gender", *(labels or {})))
    rows = _csv_rows(table) if table.suffix.lower() == ".csv" else _parquet_rows(table, readers)
    _, header = next(rows, ("", None))
    if header is None:
        raise AgeGenderError(f"data.table={table} is empty; give a table that lists images")
    columns = _columns(table, header, readers, wanted)
    found: dict[str, _Row] = {}
    quarantine: dict[str, str] = {}
    for where, cells in rows:
        by_column = {name: cells[place].strip() if place < len(cells) else "" for name, place in columns.items()}
        name = _name(by_column["path"], folder) or f"({where})"
        try:
            row = _read_row(by_column, readers, wanted)
            if any(cell.strip() for cell in cells[len(header) :]):
                raise _QuarantinedRowError("more cells than the header has: is a comma not quoted?")
            if found.setdefault(name, row) != row:
                raise _QuarantinedRowError("several rows name it, with different labels")
        except _QuarantinedRowError as reason:
            quarantine.setdefault(name, str(reason))
        except AgeGenderError as error:
            raise AgeGenderError(f"{table}, {where}: {error}") from None
    classes = {"gender": GENDERS} | {name: tuple(names) for name, names in (labels or {}).items() if names is not None}
    kept = {name: row for name, row in found.items() if name not in quarantine}
    return _listing(kept, tuple(readers), classes, quarantine)


def _listing(
    rows: dict[str, _Row], columns: tuple[str, ...], classes: dict[str, tuple[str, ...]], quarantine: dict[str, str]
) -> LabelTable:
    texts = {label for row in rows.values() for label in row.labels if isinstance(label, str)}
    groups, codes = _name_groups(texts)
    labels = {
        name: tuple(codes[label] if isinstance(label, str) else label for label in row.labels)
        for name, row in rows.items()
    }
    splits = {name: row.split for name, row in rows.items()}
    is_split = any(split != UNUSED for split in splits.values())  # False if the column is missing or empty
    classes = {name: ({"group": groups} | classes)[name] for name in columns if name == "group" or name in classes}
    return LabelTable(labels, quarantine, columns, classes, splits if is_split else None)


def _name_groups(texts: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the groups' names in the order of their codes, and the code of each text."""
    known = {name.casefold(): code for code, name in enumerate(GROUPS)} | {str(c): c for c in range(len(GROUPS))}
    if all(text.casefold() in known for text in texts):
        return GROUPS, {text: known[text.casefold()] for text in texts}
    names = tuple(sorted(texts))
    require(
        len(names) <= MOST_GROUPS,
        f"the table's column group holds {len(names):,} different texts, {names[0]!r} the first: at most {MOST_GROUPS} "
        "groups are supported; rename the column to ignore it",
    )
    return names, {name: code for code, name in enumerate(names)}


# Cells


def _name(path: str, folder: Path) -> str:
    """Return the normalized path of a file relative to the folder; empty if there is no path."""
    name = os.path.normpath(path) if path else ""
    inside = os.path.join(os.path.abspath(folder), "")
    return name.removeprefix(inside)


def _read_row(cells: Mapping[str, str], readers: Mapping[str, Reader], wanted: Iterable[str]) -> _Row:
    """Parse the cells of a row, given by column.

    Raises:
        _QuarantinedRowError: The path or a label is invalid, or all wanted labels are missing.
        AgeGenderError: The split is unknown.
    """
    split = SPLIT_ALIASES.get(cells.get("split", "").casefold())
    if split is None:
        raise AgeGenderError(f"split {_shown(cells['split'])} is not one of {', '.join(SPLITS)}; leave it empty")
    if not cells["path"]:
        raise _QuarantinedRowError("no path")
    if "\0" in cells["path"]:
        raise _QuarantinedRowError("no file's path holds a null character")
    labels = {name: read(cells.get(name, "")) for name, read in readers.items()}
    if all(labels[name] is None for name in wanted):
        raise _QuarantinedRowError(f"neither {' nor '.join(wanted)}")
    return _Row(tuple(labels.values()), split)


def _readers(labels: Mapping[str, Sequence[str] | None], age_range: Sequence[int]) -> dict[str, Reader]:
    """Return the reader of each label's cells.

    Raises:
        AgeGenderError: A label has a reserved name, or age, gender or group is a number or not against its meaning.
    """
    readers: dict[str, Reader] = {
        "age": lambda text: _age(text, age_range),
        "gender": _class_reader("gender", GENDERS),
        "group": _group,
    }
    for name, classes in labels.items():
        require(name.casefold() not in RESERVED, f"a column {name} is no label: rename it in the table and in the task")
        meaning = "classes" if name in CLASSES else "a number"
        fits = name not in LABELS or (classes is None) == (meaning == "a number")
        require(fits, f"the label {name} is {meaning}: give the task another column")
        if classes is not None:
            readers[name] = _class_reader(name, classes)
        elif name != "age":
            readers[name] = lambda text, name=name: _number(name, text)  # type: ignore[misc]
    return readers


def _age(text: str, age_range: Sequence[int]) -> float | None:
    """Return completed years; None if missing."""
    if text.casefold() in UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text):
        raise _QuarantinedRowError(f"age {_shown(text)} is not a number of years")
    if not max(age_range[0], 0) <= float(text) < min(age_range[1], MAX_LABEL_AGE) + 1:
        raise _QuarantinedRowError(f"age {_shown(text)} outside {age_range[0]}..{age_range[1]}")
    return math.floor(float(text))


def _number(label: str, text: str) -> float | None:
    if text.casefold() in UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text) or abs(float(text)) > MAX_NUMBER:
        raise _QuarantinedRowError(f"{label} {_shown(text)} is not a finite number")
    return float(text)


def _class_reader(label: str, classes: Sequence[str]) -> Reader:
    """Return the reader of a label with classes: a class's name in any case, or its code.

    If a name is a number itself, cells hold names only. A name takes precedence over a word for missing labels.
    """
    codes = {_key(name): code for code, name in enumerate(classes)}
    numbers = {} if any(key.isdigit() for key in codes) else {str(code): code for code in range(len(classes))}
    letters = {"m": 0, "f": 1} if tuple(classes) == GENDERS else {}
    codes |= numbers | letters
    expected = ", ".join([*numbers, *classes, *letters])

    def read(text: str) -> float | None:
        code = codes.get(_key(text))
        if code is None and text.casefold() not in UNKNOWN:
            raise _QuarantinedRowError(f"{label} {_shown(text)} is none of {expected}")
        return code

    return read


def _group(text: str) -> str | None:
    """Return the text of a group as one line of valid Unicode, for pages and plots; None if missing."""
    group = " ".join(_code(text).split()).encode(errors="replace").decode()
    return None if group.casefold() in UNKNOWN else group


def _key(text: str) -> str:
    """Return a class's name, or a cell, as it is compared."""
    return _code(" ".join(text.split())).casefold()


def _code(text: str) -> str:
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


# Files


def _columns(table: Path, header: Sequence[str], labels: Iterable[str], wanted: Iterable[str]) -> dict[str, int]:
    """Return the position of `path`, `split` and each label, as far as the table has them.

    Raises:
        AgeGenderError: A required column is missing, or a column is repeated; the message lists the header.
    """
    names = [name.strip().casefold() for name in header]
    shown = ", ".join(name.strip() for name in header)
    known = {name: name.casefold() for name in ("path", "file", "split", *labels)}
    twice = [name for name, folded in known.items() if names.count(folded) > 1]
    require(not twice, f"{table} has more than one column {', '.join(twice)}: {shown}")
    places = {name: names.index(folded) for name, folded in known.items() if folded in names}
    if "file" in places:
        places.setdefault("path", places["file"])
    for name in wanted:
        fits = name in places or name in LABELS
        require(fits, f"data.table={table} has no column {name}, which a task needs; it has {shown}")
    require(
        "path" in places and any(name in places for name in wanted),
        f"{table} needs a header line with the columns path, and one or more of {', '.join(wanted)}; it has {shown}",
    )
    return places


def _csv_rows(table: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each line's location and cells, the header first; blank lines are skipped."""
    try:
        # Excel writes a byte order mark; a path may hold bytes that are not UTF-8.
        with table.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file, skipinitialspace=True)
            yield from ((f"line {reader.line_num}", row) for row in reader if any(row))
    except csv.Error as error:
        raise AgeGenderError(f"{table}, line {reader.line_num}: {error}; is this a CSV file?") from None
    except OSError as error:
        raise AgeGenderError(f"data.table={table} can't be read ({error.strerror})") from None


def _parquet_rows(table: Path, labels: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each row's location and cells as text, the header first; unknown columns are not read."""
    try:
        import pyarrow  # a slow import, made only if needed
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra(f"data.table={table}", error, "parquet", "or give the table as CSV") from None
    try:
        with parquet.ParquetFile(table) as file:
            names: list[str] = file.schema_arrow.names
            yield "the header", names
            known = {"path", "file", "split", *(label.casefold() for label in labels)}
            read = [name for name in names if name.strip().casefold() in known]
            columns = {name: file.read([name]).column(0).to_pylist() for name in read}
            for place in range(file.metadata.num_rows):
                row = [_text(columns[name][place]) if name in columns else "" for name in names]
                if any(row):
                    yield f"row {place + 1}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AgeGenderError(f"data.table={table} can't be read as Parquet ({reason}); is it whole?") from None


def _text(value: Any) -> str:
    """Return the CSV text of a value of a Parquet column."""
    if value is None or value != value:  # None or NaN
        return ""
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
