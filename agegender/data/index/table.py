"""Labels from a CSV or Parquet table, checked as strictly as UTKFace's file names."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agegender.data.index.cells import Label, QuarantinedRowError, Reader, label_readers, shown
from agegender.data.index.split import SPLITS, UNUSED
from agegender.data.index.utkface import CLASSES, GROUPS, LABELS, LabelTable
from agegender.errors import AgeGenderError, missing_extra, require

SPLIT_ALIASES = {side: side for side in (*SPLITS, UNUSED)} | {"valid": "val", "validation": "val", "": UNUSED}
MOST_GROUPS = 100  # a column with more values is not a group


class _Row(NamedTuple):
    """Parsed row of one file: its labels in the order of the readers, and its split."""

    labels: tuple[Label, ...]
    split: str


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

    The columns are `path` (or `file`), `split`, `LABELS` and further labels, in any order and case; others are ignored.
    One label is enough, and a label's cell may be empty. A row that can't be parsed without guessing is quarantined; so
    is a file with conflicting rows.

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
    readers = label_readers(labels or {}, age_range)
    wanted = dict.fromkeys((*LABELS[:2], *(labels or {})))  # a group without a task is of no use alone
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
                raise QuarantinedRowError("more cells than the header has: is a comma not quoted?")
            if found.setdefault(name, row) != row:
                raise QuarantinedRowError("several rows name it, with different labels")
        except QuarantinedRowError as reason:
            quarantine.setdefault(name, str(reason))
        except AgeGenderError as error:
            raise AgeGenderError(f"{table}, {where}: {error}") from None
    classes = {name: tuple(names) for name, names in (labels or {}).items() if names is not None}
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
    classes = CLASSES | {"group": groups} | classes
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


# Rows


def _name(path: str, folder: Path) -> str:
    """Return the normalized path of a file relative to the folder; empty if there is no path."""
    name = os.path.normpath(path) if path else ""
    inside = os.path.join(os.path.abspath(folder), "")
    return name.removeprefix(inside)


def _read_row(cells: Mapping[str, str], readers: Mapping[str, Reader], wanted: Iterable[str]) -> _Row:
    """Parse the cells of a row, given by column.

    Raises:
        QuarantinedRowError: The path or a label is invalid, or all wanted labels are missing.
        AgeGenderError: The split is unknown.
    """
    split = SPLIT_ALIASES.get(cells.get("split", "").casefold())
    if split is None:
        raise AgeGenderError(f"split {shown(cells['split'])} is not one of {', '.join(SPLITS)}; leave it empty")
    if not cells["path"]:
        raise QuarantinedRowError("no path")
    if "\0" in cells["path"]:
        raise QuarantinedRowError("no file's path holds a null character")
    labels = {name: read(cells.get(name, "")) for name, read in readers.items()}
    if all(labels[name] is None for name in wanted):
        raise QuarantinedRowError(f"neither {' nor '.join(wanted)}")
    return _Row(tuple(labels.values()), split)


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
