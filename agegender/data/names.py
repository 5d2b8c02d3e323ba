"""What is known of each face before any file is opened: UTKFace's file names hold the labels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
GROUPS = ("White", "Black", "Asian", "Indian", "Others")  # UTKFace's third field, in the data set's own words
_SUFFIX = r"\s*\.?(?:jpe?g|png|webp|bmp)(?:\.chip\.jpg)?"
_NAME = re.compile(rf"([0-9]{{1,3}})_([0-9])_([0-9])_([0-9]+){_SUFFIX}", re.IGNORECASE | re.ASCII)
_THREE_FIELDS = re.compile(rf"[0-9]{{1,3}}_[0-9]_[0-9]{{8,}}{_SUFFIX}", re.IGNORECASE | re.ASCII)


MISSING = -1  # in place of an age, a gender or a group that is not known; file names have all three, tables may not


@dataclass(frozen=True, slots=True)
class Label:
    """What is said of one face.

    Attributes:
        age: Completed years.
        gender: 0 = male, 1 = female.
        group: Its code: the place of its name in the listing's `groups`.
    """

    age: int
    gender: int
    group: int


@dataclass(frozen=True)
class Listing:
    """The faces that a folder's file names, or a table, speak of.

    Attributes:
        labels: By file name, as it is found from the folder.
        quarantine: File name to reason, for what can't be taken.
        groups: The names of the groups' codes.
        sides: File name to `train`, `val`, `test` or `unused`, where the listing says that too; else None.
    """

    labels: dict[str, Label]
    quarantine: dict[str, str]
    groups: tuple[str, ...] = GROUPS
    sides: Mapping[str, str] | None = None


class QuarantinedNameError(ValueError):
    """A file name that can't be read without guessing; the message is the reason."""


def parse_name(name: str, age_range: Sequence[int] = (0, 120)) -> Label:
    """Reads `[age]_[gender]_[race]_[date&time].jpg(.chip.jpg)`.

    Unambiguous oddities are accepted (a space before `.jpg`, a missing dot, a date of any length). A name that lacks a
    field is not: which one is missing is disputed, so a label would be a guess.

    >>> parse_name("26_1_2_20170116172819213.jpg.chip.jpg")
    Label(age=26, gender=1, group=2)

    Args:
        name: The file's name, without its folder.
        age_range: The lowest and highest age taken, in years, both included.

    Raises:
        QuarantinedNameError: With the reason in a few words.
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
    return Label(age, gender, group)


def read_names(folder: Path, age_range: Sequence[int] = (0, 120)) -> Listing:
    """Reads the names of the files that lie directly in a folder; see `parse_name`."""
    labels: dict[str, Label] = {}
    quarantine: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini"):
                continue  # what file managers leave in a folder is nobody's picture
            if entry.is_dir():
                quarantine[entry.name] = "a sub-folder; images are read from the folder itself only"
                continue
            try:
                labels[entry.name] = parse_name(entry.name, age_range)
            except QuarantinedNameError as reason:
                quarantine[entry.name] = str(reason)
    return Listing(labels, quarantine)


def holds_faces(folder: Path) -> bool:
    """Tells whether a folder directly holds at least one image named as in UTKFace."""
    with os.scandir(folder) as entries:
        return any(_NAME.fullmatch(entry.name) for entry in entries)
