"""Labels from UTKFace's file names, and the listing of labeled files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LICENSE = "trained on UTKFace: for non-commercial research only"  # of all weights trained on its images
GENDERS = ("male", "female")  # UTKFace's second field, by its code
GROUPS = ("White", "Black", "Asian", "Indian", "Others")  # UTKFace's third field, as named by the data set
_SUFFIX = r"\s*\.?(?:jpe?g|png|webp|bmp)(?:\.chip\.jpg)?"
_NAME = re.compile(rf"([0-9]{{1,3}})_([0-9])_([0-9])_([0-9]+){_SUFFIX}", re.IGNORECASE | re.ASCII)
_THREE_FIELDS = re.compile(rf"[0-9]{{1,3}}_[0-9]_[0-9]{{8,}}{_SUFFIX}", re.IGNORECASE | re.ASCII)


class FaceLabels(NamedTuple):
    """Labels of one file name.

    Attributes:
        age: Completed years.
        gender: Position in `GENDERS`.
        group: Position in `GROUPS`.
    """

    age: int
    gender: int
    group: int


LABELS = FaceLabels._fields  # in every index, known or not
CLASSES: dict[str, tuple[str, ...]] = {"gender": GENDERS, "group": GROUPS}


@dataclass(frozen=True)
class LabelTable:
    """The labeled faces of a folder's file names or of a table.

    Attributes:
        labels: File name, relative to the folder, to its labels, one for each of `columns`: a number, or the position
            of a class in `classes`; None if missing.
        quarantine: File name to reason, for rejected entries.
        columns: Names of the labels: `LABELS`, then further columns of a table.
        classes: Names of the classes of the labels that have some, by code.
        splits: File name to `train`, `val`, `test` or `unused`; None if the listing has no split.
    """

    labels: Mapping[str, Sequence[float | None]]
    quarantine: dict[str, str]
    columns: tuple[str, ...] = LABELS
    classes: dict[str, tuple[str, ...]] = field(default_factory=lambda: CLASSES)
    splits: Mapping[str, str] | None = None


class QuarantinedNameError(ValueError):
    """A file name that can't be read without guessing; the message is the reason."""


def parse_name(name: str, age_range: Sequence[int] = (0, 120)) -> FaceLabels:
    """Parse `[age]_[gender]_[race]_[date&time].jpg(.chip.jpg)`.

    Unambiguous irregularities are accepted (a space before `.jpg`, a missing dot, a date of any length). A name that
    lacks a field is rejected: it is disputed which one is missing, so a label would be a guess.

    >>> parse_name("26_1_2_20170116172819213.jpg.chip.jpg")
    FaceLabels(age=26, gender=1, group=2)

    Args:
        name: The file's name, without its folder.
        age_range: Lowest and highest accepted age in years, inclusive.

    Raises:
        QuarantinedNameError: The name can't be parsed, or a label is out of range.
    """
    if not name.lower().endswith(tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)):
        raise QuarantinedNameError("not an image file")
    match = _NAME.fullmatch(name)
    if match is None:
        if _THREE_FIELDS.fullmatch(name):
            raise QuarantinedNameError("a field is missing; which one can't be known")
        raise QuarantinedNameError("the name is not [age]_[gender]_[race]_[date&time].jpg")
    age, gender, group = (int(match[field]) for field in (1, 2, 3))
    if not age_range[0] <= age <= age_range[1]:
        raise QuarantinedNameError(f"age {age} outside {age_range[0]}..{age_range[1]}")
    if gender not in (0, 1):
        raise QuarantinedNameError(f"gender {gender} outside {{0, 1}}")
    if group >= len(GROUPS):
        raise QuarantinedNameError(f"race {group} outside 0..{len(GROUPS) - 1}")
    return FaceLabels(age, gender, group)


def list_utkface_files(folder: Path, age_range: Sequence[int] = (0, 120)) -> LabelTable:
    """Parse the names of the files directly in a folder; see `parse_name`."""
    labels: dict[str, FaceLabels] = {}
    quarantine: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini"):
                continue  # files created by file managers
            if entry.is_dir():
                quarantine[entry.name] = "a sub-folder; images are read from the folder itself only"
                continue
            try:
                labels[entry.name] = parse_name(entry.name, age_range)
            except QuarantinedNameError as reason:
                quarantine[entry.name] = str(reason)
    return LabelTable(labels, quarantine)


def has_utkface_files(folder: Path) -> bool:
    """Return whether a folder directly holds at least one image named as in UTKFace."""
    with os.scandir(folder) as entries:
        return any(_NAME.fullmatch(entry.name) for entry in entries)
