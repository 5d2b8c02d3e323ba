"""The table of `boxes=`: a row for each face that a person's own detector found, or that `predict` wrote itself."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agegender.errors import AgeGenderError, require
from agegender.prediction.faces.given import GivenFace, parse_face
from agegender.prediction.images.sources import FLUSH, NamedImage, split_frame_name
from agegender.system.csv_escape import unescape_formula

_EDGES = ("left", "top", "right", "bottom")
_POINTS = tuple(f"{axis}{number}" for number in range(1, 6) for axis in "xy")


class BoxTable:
    """The faces of images, by the images' names.

    Attributes:
        digest: Digest of the file, which a resumed run must have too.
    """

    def __init__(self, path: Path):
        """Read a CSV file with the columns path, left, top, right, bottom, and x1, y1, ..., x5, y5 for landmarks.

        Other columns are ignored. A row without a box is an image without a face.

        Raises:
            AgeGenderError: The file can't be read, lacks a column, or has a row that is no face.
        """
        self._path = path
        self._faces: dict[str, list[GivenFace]] = {}
        self._lines: dict[str, int] = {}
        try:
            content = path.read_bytes()
            text = content.decode("utf-8-sig", "surrogateescape")
            self._read(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        except OSError as error:
            raise AgeGenderError(f"boxes={path} can't be read ({error.strerror})") from None
        except csv.Error as error:
            raise AgeGenderError(f"boxes={path} is not a CSV file ({error})") from None
        self.digest = hashlib.sha256(content).hexdigest()[:16]

    def _read(self, rows: csv.DictReader[str]) -> None:
        columns = rows.fieldnames or ()
        missing = [name for name in ("path", *_EDGES) if name not in columns]
        require(not missing, f"boxes={self._path} lacks the column {', '.join(missing)}; it has {', '.join(columns)}")
        partly = [name for name in _POINTS if name not in columns]
        fits = len(partly) in (0, len(_POINTS))
        require(fits, f"boxes={self._path} lacks the landmarks' column {', '.join(partly)}: give all ten, or none")
        for row in rows:
            where = f"line {rows.line_num} of boxes={self._path}"
            require(None not in row.values() and bool(row["path"]), f"{where} has too few cells, or no path")
            key = _key(unescape_formula(row["path"]))
            self._lines.setdefault(key, rows.line_num)
            faces = self._faces.setdefault(key, [])
            try:
                box, points = _cells(row, _EDGES), None if partly else _cells(row, _POINTS)
                if box is not None or points is not None:
                    faces.append(parse_face(box, points and list(zip(points[::2], points[1::2], strict=True))))
            except AgeGenderError as error:
                raise AgeGenderError(f"{where}: {error}") from None

    def check(self, names: Iterable[str]) -> None:
        """Check that every path of the table is one of the images or videos, or a frame of a video.

        Raises:
            AgeGenderError: It is not; the message names the first.
        """
        known = {_key(name) for name in names}
        frames = {key: split_frame_name(key) for key in self._faces if key not in known}
        strangers = [key for key, frame in frames.items() if frame is None or frame[0] not in known]
        if strangers:
            first, more = strangers[0], len(strangers) - 1
            others = f" (nor are {more} others)" if more else ""
            raise AgeGenderError(
                f"line {self._lines[first]} of boxes={self._path}: {first} is not among the images of img={others}: "
                "write the paths as img= finds them"
            )

    def attach(self, pictures: Iterable[NamedImage]) -> Iterator[NamedImage]:
        """Yield images with their faces; those that the table lacks have none."""
        for picture in pictures:
            yield picture if picture is FLUSH else replace(picture, faces=self._faces.get(_key(picture.path), ()))


def _key(path: str) -> str:
    return os.path.normpath(path)


def _cells(row: dict[str, str], names: Sequence[str]) -> list[str] | None:
    """Return the cells of a row; None if all are empty.

    Raises:
        AgeGenderError: Some are empty, or no numbers.
    """
    cells = [row[name].strip() for name in names]
    if not any(cells):
        return None
    for name, cell in zip(names, cells, strict=True):
        try:
            float(cell)
        except ValueError:
            raise AgeGenderError(f"{name}={cell or '(empty)'} is not a number") from None
    return cells
