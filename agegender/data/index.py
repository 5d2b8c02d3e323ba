"""Which faces are there, and which part of the split each belongs to: UTKFace file names become an index."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.data.duplicates import Mode
from agegender.data.scan import group_duplicates, scan_folder
from agegender.data.split import Rule, assign_splits, fingerprint, limit_rows, random_sides, read_split_file
from agegender.errors import AgeGenderError
from agegender.files import write_whole

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
GROUPS = ("White", "Black", "Asian", "Indian", "Others")  # UTKFace's third field, in the data set's own words
_SUFFIX = r"\s*\.?(?:jpe?g|png|webp|bmp)(?:\.chip\.jpg)?"
_NAME = re.compile(rf"([0-9]{{1,3}})_([0-9])_([0-9])_([0-9]+){_SUFFIX}", re.IGNORECASE | re.ASCII)
_THREE_FIELDS = re.compile(rf"[0-9]{{1,3}}_[0-9]_[0-9]{{8,}}{_SUFFIX}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Label:
    """What a UTKFace file name says: age in years, gender (0 = male, 1 = female), group (0..4, see `GROUPS`)."""

    age: int
    gender: int
    group: int


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


@dataclass(frozen=True)
class FaceIndex:
    """The faces of one folder, one entry per readable file, in the order of their names.

    Attributes:
        folder: Where the files are.
        names: File names.
        age: int16 `[n]`, years.
        gender: int8 `[n]`, 0 = male, 1 = female.
        group: int8 `[n]`, UTKFace's race field.
        digests: SHA-256 of each file, hexadecimal.
        duplicates: int64 `[n]`, the smallest index among the pictures that show the same photograph.
        split: `train`, `val`, `test`, `unused` (left out by a split file) or `val+test` (the rule `random`), as an
            array of strings.
        fingerprint: Identifies the split: same fingerprint, same pictures on the same sides.
        quarantine: File name to reason, for everything in the folder that was not taken.
    """

    folder: Path
    names: list[str]
    age: NDArray[np.int16]
    gender: NDArray[np.int8]
    group: NDArray[np.int8]
    digests: list[str]
    duplicates: NDArray[np.int64]
    split: NDArray[np.str_]
    fingerprint: str
    quarantine: dict[str, str] = field(default_factory=dict)

    def rows(self, split: str, limit: int | None = None) -> NDArray[np.int64]:
        """Returns the indices of one split's faces; `limit` (over all splits together) keeps a fixed subset."""
        return limit_rows(self.digests, self.split, limit)[split]

    def write_csv(self, path: Path) -> None:
        """Writes every file with its labels, split and duplicate group (the name of the group's first file)."""
        with write_whole(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "age", "gender", "group", "split", "duplicate_group", "sha256"])
            for i, name in enumerate(self.names):
                first = self.names[self.duplicates[i]]
                labels = (self.age[i], self.gender[i], self.group[i])
                writer.writerow([name, *labels, self.split[i], first, self.digests[i]])

    def write_quarantine(self, path: Path) -> None:
        """Writes the files that were not taken, with the reason for each."""
        # A name may hold bytes that are no UTF-8: they are written as escapes.
        with write_whole(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "reason"])
            writer.writerows(sorted(self.quarantine.items()))


def build_index(
    folder: Path,
    cache_dir: Path,
    *,
    age_range: Sequence[int] = (0, 120),
    duplicates: Mode = "near",
    split: Rule = "content",
    split_file: Path | None = None,
    split_seed: int = 0,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    strict: bool = False,
) -> FaceIndex:
    """Indexes a folder of UTKFace-named images and splits it by content.

    Every file is read once (and only again when it changes) for its SHA-256, to prove that it decodes whole, and for
    the thumbnail by which near copies are found.

    Args:
        folder: Holds the images directly; sub-folders are quarantined, not searched.
        cache_dir: Where the results of reading the files are kept.
        age_range: The lowest and highest age taken, in years, both included.
        duplicates: What counts as the same picture: `near` copies, `exact` ones only, or `none`.
        split: `content`: copies together, decided by what the pictures show. `random`: file by file, with the test
            pictures as validation pictures too; for comparison with what was published that way.
        split_file: A published protocol instead of the content rule: CSV with the columns file, split.
        split_seed: Moves the split; the training seed doesn't.
        test_fraction: Share of all pictures.
        val_fraction: Share of the pictures that are not in test.
        strict: Makes anything quarantined an error.

    Raises:
        AgeGenderError: No usable image, a split without faces, or (`strict`) anything quarantined.
    """
    labels, quarantine = _read_names(folder, age_range)
    scanned = scan_folder(folder, sorted(labels), cache_dir)
    quarantine |= scanned.unreadable
    _check_quarantine(folder, quarantine, strict)
    if not scanned.names:
        raise AgeGenderError(_nothing_found(folder, quarantine))
    groups = group_duplicates(scanned, duplicates, cache_dir)
    if split == "random":
        sides = random_sides(scanned.digests, split_seed, test_fraction)
    else:
        protocol = read_split_file(split_file, scanned.names, set(quarantine)) if split_file else None
        sides = assign_splits(scanned.digests, groups, split_seed, test_fraction, val_fraction, protocol)
    return FaceIndex(
        folder=folder,
        names=scanned.names,
        age=np.array([labels[name].age for name in scanned.names], dtype=np.int16),
        gender=np.array([labels[name].gender for name in scanned.names], dtype=np.int8),
        group=np.array([labels[name].group for name in scanned.names], dtype=np.int8),
        digests=scanned.digests,
        duplicates=groups,
        split=sides,
        fingerprint=fingerprint(scanned.digests, sides),
        quarantine=quarantine,
    )


def _read_names(folder: Path, age_range: Sequence[int]) -> tuple[dict[str, Label], dict[str, str]]:
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
    return labels, quarantine


def _check_quarantine(folder: Path, quarantine: dict[str, str], strict: bool) -> None:
    if quarantine and strict:
        name, reason = min(quarantine.items())
        raise AgeGenderError(
            f"data.strict=true and {len(quarantine)} of the files in {folder} can't be taken, the first being "
            f"{name!r}: {reason}. Mend or remove them, or set data.strict=false to quarantine them."
        )


def _nothing_found(folder: Path, quarantine: dict[str, str]) -> str:
    nested = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and holds_faces(child)]
    if nested:
        return f"no UTKFace-named image directly in {folder}; set data.dir={folder / nested[0]}"
    return (
        f"no UTKFace-named image in {folder} ({len(quarantine)} other files); "
        "data.dir must be the folder that holds files like 26_1_2_20170116172819213.jpg.chip.jpg"
    )


def holds_faces(folder: Path) -> bool:
    """Tells whether a folder directly holds at least one image named as in UTKFace."""
    with os.scandir(folder) as entries:
        return any(_NAME.fullmatch(entry.name) for entry in entries)
