"""Writers of predictions: JSON lines on standard output, CSV, JSON and Parquet files. `table.py` is the table."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from agegender.errors import EXIT_PIPE, AgeGenderError, missing_extra, require
from agegender.prediction.prediction import Prediction, columns_of, to_row
from agegender.system.csv_escape import escape_formula
from agegender.system.files import atomic_write
from agegender.tasks.info import TaskInfo

PIPE = "-"
Row = dict[str, Any]


def check_output(out: str, key: str = "out") -> None:
    """Check that an output file can be written, before any work is done.

    Args:
        out: Path of the file, or `PIPE` for standard output.
        key: The setting that names it.

    Raises:
        AgeGenderError: The suffix is unknown, the folder doesn't exist, or a package is missing.
    """
    if out == PIPE:
        return
    path = Path(out)
    require(path.suffix.lower() in _FORMS, f"{key}={out} must end in {', '.join(_FORMS)}, or be {PIPE} for a pipe")
    if not path.parent.is_dir():
        raise AgeGenderError(f"{key}={out}: the folder {path.parent} does not exist; create it first")
    require(not path.is_dir(), f"{key}={out} is a folder; name a file")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_rows(
    out: Path, rows: Iterable[Row], tasks: Sequence[TaskInfo], columns: Sequence[str] | None = None, key: str = "out"
) -> None:
    """Write rows to a file atomically, in the format of its suffix.

    Args:
        out: The file; `check_output` has accepted it.
        rows: Rows from `prediction.to_row`, or with the given columns.
        tasks: The predictor's tasks.
        columns: Names of the columns; None for `prediction.columns_of`.
        key: The setting that names the file.

    Raises:
        AgeGenderError: The file can't be written.
    """
    try:
        _FORMS[out.suffix.lower()](out, rows, _kinds(tasks, columns or columns_of(tasks)))
    except OSError as error:
        raise AgeGenderError(f"can't write {key}={out} ({error.strerror or error})") from None


@contextmanager
def _text(out: Path) -> Iterator[IO[str]]:
    # a file name may hold bytes that are not UTF-8: they are written unchanged
    with atomic_write(out, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield file


def _csv(out: Path, rows: Iterable[Row], kinds: Mapping[str, type]) -> None:
    texts = [name for name, kind in kinds.items() if kind is str and name != "error"]
    with _text(out) as file:
        writer = csv.DictWriter(file, list(kinds))
        writer.writeheader()
        writer.writerows(row | {name: escape_formula(row[name]) for name in texts if row[name]} for row in rows)


def _kinds(tasks: Sequence[TaskInfo], columns: Sequence[str]) -> dict[str, type]:
    """Return the type of the values of each column."""
    fields = {name: str if name == info.name and info.classes else float for info in tasks for name in info.fields}
    place = {"path": str, "error": str, "face": int, "track": int, "frames": int}
    return {name: fields.get(name, place.get(name, float)) for name in columns}


def _json(out: Path, rows: Iterable[Row], kinds: Mapping[str, type]) -> None:
    with _text(out) as file:
        before = "[\n  "
        for row in rows:
            file.write(before + json.dumps(row))
            before = ",\n  "
        file.write("\n]\n" if before.startswith(",") else "[]\n")


def _json_lines(out: Path, rows: Iterable[Row], kinds: Mapping[str, type]) -> None:
    with _text(out) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _parquet(out: Path, rows: Iterable[Row], kinds: Mapping[str, type]) -> None:
    pa, pq = _pyarrow()
    types = {str: pa.string(), int: pa.int32(), float: pa.float64()}
    schema, rest = pa.schema([(name, types[kind]) for name, kind in kinds.items()]), iter(rows)
    with atomic_write(out) as file, pq.ParquetWriter(file, schema) as writer:
        while part := list(islice(rest, 10_000)):
            named = [row | {"path": row["path"].encode("utf-8", "replace").decode()} for row in part]
            writer.write_table(pa.Table.from_pylist(named, schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("out=... .parquet", error, "parquet") from None
    return pyarrow, parquet


_FORMS: dict[str, Callable[[Path, Iterable[Row], Mapping[str, type]], None]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def print_jsonl(predictions: Iterable[Prediction], tasks: Sequence[TaskInfo], tracked: bool = False) -> None:
    """Print predictions as JSON lines, and flush after each.

    Raises:
        SystemExit: The reader closed the pipe, as `| head` does.
        AgeGenderError: Standard output can't be written, for example because the disk is full.
    """
    for prediction in predictions:
        with while_read():
            print(json.dumps(to_row(prediction, tasks, tracked)), flush=True)


@contextmanager
def while_read() -> Iterator[None]:
    """Exit silently when the reader closes the pipe; raise other failures as a one-line error."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again at exit
        if isinstance(error, BrokenPipeError):
            sys.exit(EXIT_PIPE)
        raise AgeGenderError(f"can't write to standard output ({error.strerror or error})") from None
