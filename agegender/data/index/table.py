"""Labels from a CSV or Parquet table, checked as strictly as UTKFace's file names."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agegender.data.index.split import SPLITS, UNUSED
from agegender.data.index.utkface import GROUPS, MISSING, FaceLabels, LabelTable
from agegender.errors import AgeGenderError, missing_extra, require

COLUMNS = {name: name for name in ("path", "age", "gender", "group", "split")} | {"file": "path"}  # header -> meaning
GENDERS = {"0": 0, "male": 0, "m": 0, "1": 1, "female": 1, "f": 1}
SPLIT_ALIASES = {side: side for side in (*SPLITS, UNUSED)} | {"valid": "val", "validation": "val", "": UNUSED}
UNKNOWN = ("", "na", "n/a", "nan", "none", "null", "unknown")  # cells that mean a missing label
MAX_LABEL_AGE = 999  # years; limit of UTKFace's names and of the index
MOST_GROUPS = 100  # a group's code is one byte; a column with more values is not a group
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)  # an integer in a float column, as pandas writes it


class _Row(NamedTuple):
    """Parsed row of one file; `group` is its text, empty if missing."""

    age: int
    gender: int
    group: str
    side: str


class _QuarantinedRowError(ValueError):
    """A row that can't be parsed without guessing; the message is the reason."""


def check_ending(table: Path) -> None:
    """Refuse a table whose suffix is neither .csv nor .parquet."""
    fits = table.suffix.lower() in (".csv", ".parquet")
    require(fits, f"data.table={table} must end in .csv or .parquet")


def read_table(table: Path, folder: Path, age_range: Sequence[int] = (0, 120)) -> LabelTable:
    """Read a table of files and labels.

    The columns are `path` (or `file`), `age`, `gender`, `group` and `split`, in any order and case; others are ignored.
    One of `age` and `gender` is enough, and a cell of either may be empty. A row that can't be parsed without guessing
    is quarantined; so is a file with conflicting rows.

    Args:
        table: CSV (UTF-8, commas, a header line) or Parquet.
        folder: Base of relative paths.
        age_range: Lowest and highest accepted age in years, inclusive.

    Returns:
        The rows by path from the folder; `sides` is None without a split column.

    Raises:
        AgeGenderError: The file is missing, malformed or lacks a column, or a split is unknown.
    """
    check_ending(table)
    require(table.is_file(), f"data.table={table}: there is no such file; give the table that lists the images")
    rows = _csv_rows(table) if table.suffix.lower() == ".csv" else _parquet_rows(table)
    _, header = next(rows, ("", None))
    if header is None:
        raise AgeGenderError(f"data.table={table} is empty; give a table that lists images")
    columns = _columns(table, header)
    found: dict[str, _Row] = {}
    quarantine: dict[str, str] = {}
    for where, cells in rows:
        by_column = {name: cells[place].strip() if place < len(cells) else "" for name, place in columns.items()}
        name = _name(by_column["path"], folder) or f"({where})"
        try:
            row = _read_row(by_column, age_range)
            if any(cell.strip() for cell in cells[len(header) :]):
                raise _QuarantinedRowError("more cells than the header has: is a comma not quoted?")
            if found.setdefault(name, row) != row:
                raise _QuarantinedRowError("several rows name it, with different labels")
        except _QuarantinedRowError as reason:
            quarantine.setdefault(name, str(reason))
        except AgeGenderError as error:
            raise AgeGenderError(f"{table}, {where}: {error}") from None
    return _listing({name: row for name, row in found.items() if name not in quarantine}, quarantine)


def _listing(rows: dict[str, _Row], quarantine: dict[str, str]) -> LabelTable:
    groups, codes = _name_groups({row.group for row in rows.values() if row.group})
    labels = {name: FaceLabels(row.age, row.gender, codes.get(row.group, MISSING)) for name, row in rows.items()}
    sides = {name: row.side for name, row in rows.items()}
    split = any(side != UNUSED for side in sides.values())  # False if the column is missing or empty
    return LabelTable(labels, quarantine, groups, sides if split else None)


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


def _read_row(cells: dict[str, str], age_range: Sequence[int]) -> _Row:
    """Parse the cells of a row, given by column.

    Raises:
        _QuarantinedRowError: The path or a label is invalid, or age and gender are both missing.
        AgeGenderError: The split is unknown.
    """
    side = SPLIT_ALIASES.get(cells.get("split", "").casefold())
    if side is None:
        raise AgeGenderError(f"split {_shown(cells['split'])} is not one of {', '.join(SPLITS)}; leave it empty")
    if not cells["path"]:
        raise _QuarantinedRowError("no path")
    if "\0" in cells["path"]:
        raise _QuarantinedRowError("no file's path holds a null character")
    age, gender = _age(cells.get("age", ""), age_range), _gender(cells.get("gender", ""))
    if age == gender == MISSING:
        raise _QuarantinedRowError("neither age nor gender")
    # one line of valid Unicode, for pages and plots
    group = _code(" ".join(cells.get("group", "").split())).encode(errors="replace").decode()
    return _Row(age, gender, "" if group.casefold() in UNKNOWN else group, side)


def _age(text: str, age_range: Sequence[int]) -> int:
    """Return completed years, or `MISSING`."""
    if text.casefold() in UNKNOWN:
        return MISSING
    if not _NUMBER.fullmatch(text):
        raise _QuarantinedRowError(f"age {_shown(text)} is not a number of years")
    years = min(float(text), MAX_LABEL_AGE + 1.0)  # 1e400 parses as infinity
    if years < 0 or not age_range[0] <= math.floor(years) <= min(age_range[1], MAX_LABEL_AGE):
        raise _QuarantinedRowError(f"age {_shown(text)} outside {age_range[0]}..{age_range[1]}")
    return math.floor(years)


def _gender(text: str) -> int:
    if text.casefold() in UNKNOWN:
        return MISSING
    gender = GENDERS.get(_code(text).casefold())
    if gender is None:
        raise _QuarantinedRowError(f"gender {_shown(text)} is none of 0, 1, male, female, m, f")
    return gender


def _code(text: str) -> str:
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


# Files


def _columns(table: Path, header: Sequence[str]) -> dict[str, int]:
    """Return the position of each known column.

    Raises:
        AgeGenderError: A required column is missing, or a column is repeated; the message lists the header.
    """
    names = [name.strip().casefold() for name in header]
    shown = ", ".join(name.strip() for name in header)
    twice = [name for name in COLUMNS if names.count(name) > 1]
    require(not twice, f"{table} has more than one column {', '.join(twice)}: {shown}")
    # `path` takes precedence over `file`
    places = {meaning: names.index(name) for name, meaning in reversed(COLUMNS.items()) if name in names}
    require(
        "path" in places and bool({"age", "gender"} & set(places)),
        f"{table} needs a header line with the columns path, and age or gender or both; it has {shown}",
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


def _parquet_rows(table: Path) -> Iterator[tuple[str, list[str]]]:
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
            read = [name for name in names if name.strip().casefold() in COLUMNS]
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
