"""The table of predictions on the terminal: one row per face, in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agegender.prediction.prediction import NO_FACE, Prediction
from agegender.prediction.writers.writers import Row, while_read
from agegender.system.terminal import console, printable
from agegender.tasks.info import NUMBER_COLUMNS, UNSURE, TaskInfo

# Characters: of a column of errors beside whole folders, and at least; and of a column of paths at least, "image".
_ROOMY_ERROR, _LEAST_ERROR, _LEAST_PATH = 20, 8, 5


def print_table(predictions: Iterable[Prediction], tasks: Sequence[TaskInfo], tracked: bool = False) -> None:
    """Print predictions as a table; of tracked ones with the column `track`.

    An image is named beside its first face only. There is a column of the faces' numbers if an image has several, and
    one of errors if there is an error. An image without a face has the words "no face" where others have an answer.

    Raises:
        SystemExit: The reader closed the pipe.
        AgeGenderError: Standard output can't be written.
    """
    found = list(predictions)
    several = any((one.face or 1) > 1 for one in found)
    failed = any(one.error not in (None, NO_FACE) for one in found)
    heads = [*["face"] * several, *["track"] * tracked, *(head for info in tasks for head in _heads(info))]
    paths: list[str] = []
    rows: list[list[Text]] = []
    for one in found:
        paths.append(one.path if one.face in (None, 1) else "")
        cells = [_shown(one.face) for _ in range(several)] + [_shown(one.track) for _ in range(tracked)]
        if one.error is None:
            cells += (cell for info in tasks for cell in _cells(info, one.values))
        elif one.error == NO_FACE:
            cells.append(_shown("no face", "dim"))
        cells += [Text()] * (len(heads) - len(cells))
        rows.append([*cells, *[_shown(None if one.error == NO_FACE else one.error, "red")] * failed])
    _print("image", paths, [*map(Text, heads), *[Text("error")] * failed], rows, errors=failed)


def print_people(rows: Iterable[Row], tasks: Sequence[TaskInfo]) -> None:
    """Print the rows of tracks (`tracking.people.People.rows`) as a table.

    Raises:
        SystemExit: The reader closed the pipe.
        AgeGenderError: Standard output can't be written.
    """
    found = list(rows)
    heads = ("track", "start", "end", "frames", *(head for info in tasks for head in _heads(info)))
    cells = [
        [
            *map(_shown, (row["track"], f"{row['start']:.2f}", f"{row['end']:.2f}", row["frames"])),
            *(cell for info in tasks for cell in _cells(info, row)),
        ]
        for row in found
    ]
    _print("video", [row["path"] for row in found], [*map(Text, heads)], cells)


def _print(
    first: str, paths: Sequence[str], heads: Sequence[Text], rows: Sequence[Sequence[Text]], errors: bool = False
) -> None:
    """Print a table whose first column holds paths, and with `errors` whose last one holds errors."""
    screen = console(file=sys.stdout)
    table = Table()
    parts = [_parts(path) for path in paths]
    needs = [max(map(_width, column)) for column in zip(heads, *rows, strict=True)]
    width, last = _widths(screen, parts, needs, errors)
    table.add_column(first, overflow="fold", width=width)  # don't truncate; and some encodings lack the ellipsis
    for number, head in enumerate(heads, 1):
        table.add_column(head, overflow="fold", width=last if errors and number == len(heads) else None)
    for (folder, name), row in zip(parts, rows, strict=True):
        table.add_row(Text(folder + ("\n" if folder and cell_len(folder + name) > width else "") + name), *row)
    with while_read():
        screen.print(table)
        sys.stdout.flush()


def _widths(screen: Console, parts: Sequence[tuple[str, str]], needs: list[int], errors: bool) -> tuple[int, int]:
    """Return the widths of the first column and of that of the errors; folders wrap first, then errors, then names."""
    name, whole = (max(map(cell_len, texts), default=0) for texts in ([both[1] for both in parts], map("".join, parts)))
    error = needs[-1] if errors else 0
    left = screen.width - 3 * (len(needs) + 1) - 1 - (sum(needs) - error)  # each column has two spaces and a line
    wanted = whole if left - whole >= min(error, _ROOMY_ERROR) else name
    path = max(_LEAST_PATH, min(wanted, left - min(error, _LEAST_ERROR)))
    return path, max(1, min(error, left - path))


def _parts(path: str) -> tuple[str, str]:
    """Return the folder of a path, with its last slash, and the name in it, as printable text."""
    name = os.path.basename(path)
    return printable(path.removesuffix(name)), printable(name)


def _width(cell: Text) -> int:
    return max(map(cell_len, cell.plain.split("\n")))


def _heads(info: TaskInfo) -> tuple[str, ...]:
    """Return the heads of a task's columns: one, and one for each threshold."""
    name = printable(info.name)
    if info.kind != "number":
        return (name,)
    tails = (column.rpartition("_")[2] for column in info.columns[NUMBER_COLUMNS:])
    return f"{name}\n(80 % range)", *(f"p(>= {threshold})" for threshold in tails)


def _cells(info: TaskInfo, values: Mapping[str, Any]) -> tuple[Text, ...]:
    """Return `32 (24 to 47)` and the probabilities of thresholds in percent, or `female 88 %`, or `unsure`."""
    numbers = [values[column] for column in info.columns]
    if info.kind == "number":
        number, interval = numbers[0], info.interval(values, " to ")
        text = "" if number is None else f"{number:.{info.decimals}f}" + (f" ({interval})" if interval else "")
        tails = ("" if each is None else f"{100 * each:.0f} %" for each in numbers[NUMBER_COLUMNS:])
        return Text(text), *map(Text, tails)
    name = values[info.name]
    if name == UNSURE or None in numbers:
        return (_shown(name, "dim" if name == UNSURE else ""),)
    return (_shown(info.describe(values)),)


def _shown(value: object, style: str = "") -> Text:
    return Text("" if value is None else printable(str(value)), style)
