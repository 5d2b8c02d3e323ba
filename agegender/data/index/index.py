"""Index of a folder's faces with labels, duplicate groups and split, from file names or a table."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.duplicates import Mode
from agegender.data.index.protocol import Leak, find_leak
from agegender.data.index.published import read_coral, read_split_file
from agegender.data.index.scan import group_duplicates, scan_folder
from agegender.data.index.split import (
    UNUSED,
    SplitRule,
    assign_splits,
    fingerprint,
    fold_of,
    random_split,
    subsample,
)
from agegender.data.index.table import read_table
from agegender.data.index.utkface import CLASSES, has_utkface_files, list_utkface_files
from agegender.errors import AgeGenderError, require
from agegender.system.csv_escape import escape_formula
from agegender.system.files import atomic_write

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaceIndex:
    """The faces of one folder, one row per readable file, in the order of their names.

    Attributes:
        folder: Folder of the files.
        names: File names, relative to the folder.
        labels: Name to labels, float32 `[n]`: numbers, or positions in `classes`; NaN if missing. First come those of
            `LABELS`, whether they are known or not, then further columns of a table. Ages are in completed years.
        digests: SHA-256 of each file, hexadecimal.
        duplicates: int64 `[n]`, the smallest row among the images of the same photograph.
        split: `train`, `val`, `test`, `unused` (left out by a split file or a table) or `val+test` (the rule `random`),
            as an array of strings.
        fingerprint: Hash of the split: same fingerprint, same images in the same splits.
        quarantine: File name to reason, for all rejected entries of the folder or the table.
        classes: Names of the classes of the labels that are no numbers.
        split_source: Source of a published split: `file <name>` or `table <name>`; None if a rule decided the split.
        leak: Test images with a copy in the training part.
    """

    folder: Path
    names: Sequence[str]
    labels: dict[str, NDArray[np.float32]]
    digests: list[str]
    duplicates: NDArray[np.int64]
    split: NDArray[np.str_]
    fingerprint: str
    quarantine: dict[str, str] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=lambda: CLASSES)
    split_source: str | None = None
    leak: Leak | None = None

    def rows(self, split: str, limit: int | None = None) -> NDArray[np.int64]:
        """Return the rows of one split; `limit` (over all splits together) keeps a fixed subset."""
        return subsample(self.digests, self.split, limit)[split]

    def label_cells(self, row: int) -> list[str]:
        """Return one CSV cell for each label of a face; empty if it is missing."""
        values = (column[row] for column in self.labels.values())
        return ["" if np.isnan(value) else f"{value:.9g}" for value in values]

    def write_csv(self, path: Path) -> None:
        """Write every file with its labels, split and duplicate group (the name of the group's first file)."""
        with atomic_write(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *self.labels, "split", "duplicate_group", "sha256"])
            for i, name in enumerate(self.names):
                first = escape_formula(self.names[self.duplicates[i]])
                writer.writerow([escape_formula(name), *self.label_cells(i), self.split[i], first, self.digests[i]])

    def write_quarantine(self, path: Path) -> None:
        """Write the quarantined files, with the reason for each."""
        # A name may hold bytes that are not UTF-8: they are written as escapes.
        with atomic_write(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "reason"])
            writer.writerows((escape_formula(name), reason) for name, reason in sorted(self.quarantine.items()))


def drop_missing(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the labels that are not missing."""
    return labels[~np.isnan(labels)]


def check_labels(
    needed: Mapping[str, Sequence[str] | None], held: Mapping[str, Sequence[str] | None], source: str, remedy: str
) -> None:
    """Refuse labels of tasks that a source of labels doesn't hold.

    Args:
        needed: Labels of the tasks, and their classes; None for a number.
        held: Labels of the source, likewise.
        source: The source, for the message.
        remedy: What to do, for the message.

    Raises:
        AgeGenderError: A label is missing, or has other classes.
    """
    known = ", ".join(held)
    for name, classes in needed.items():
        require(name in held, f"a task needs the label {name}, but there are only {known} in {source}: {remedy}")
        wanted, found = ("a number" if each is None else ", ".join(each) for each in (classes, held[name]))
        require(wanted == found, f"a task takes the label {name} as {wanted}, but it is {found} in {source}: {remedy}")


def build_index(
    folder: Path,
    cache_dir: Path,
    *,
    table: Path | None = None,
    labels: Mapping[str, Sequence[str] | None] | None = None,
    age_range: Sequence[int] = (0, 120),
    duplicates: Mode = "near",
    split: SplitRule = "content",
    split_file: Path | None = None,
    split_seed: int = 0,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    fold: int | None = None,
    folds: int | None = None,
    strict: bool = False,
) -> FaceIndex:
    """Index a folder of images, named as in UTKFace or labeled by a table, and split it by content.

    Every file is read once (and again only when it changes) for its SHA-256, to check that it decodes completely, and
    for the thumbnail by which near copies are found.

    Args:
        folder: Holds the images directly; sub-folders are quarantined, not searched. With a table, the base of its
            relative paths.
        cache_dir: Folder of the cached scan results.
        table: CSV or Parquet with the files and their labels, see `read_table`; None to read them from the names.
        labels: Labels of tasks, and their classes (None for a number): columns of the table that are read beside
            `LABELS`.
        age_range: Lowest and highest accepted age in years, inclusive.
        duplicates: Criterion for copies: `near` copies, `exact` ones only, or `none`.
        split: `content`: decided by the images' contents, copies together. `random`: file by file, with the test images
            as validation images too; for comparison with results published that way. `test`: every image is a test
            image. `folds`, `fivefold_benchmark`: by content, one fold is the test set, see `Fold`. `coral`: CORAL's
            published lists.
        split_file: A published protocol instead of the content rule: CSV with the columns file, split. A table's own
            column split is used in the same way.
        split_seed: Seed of the split, independent of the training seed.
        test_fraction: Fraction of all images.
        val_fraction: Fraction of the images that are not in test.
        fold: Number of the test fold, from 0.
        folds: Number of folds.
        strict: Raise an error if anything is quarantined.

    Raises:
        AgeGenderError: No usable image, a split without faces, or (`strict`) anything quarantined.
    """
    listing = list_utkface_files(folder, age_range) if table is None else read_table(table, folder, age_range, labels)
    scanned = scan_folder(folder, sorted(listing.labels), cache_dir)
    quarantine = listing.quarantine | scanned.unreadable
    if quarantine and strict:
        raise AgeGenderError(_strictly(f"rows of {table}" if table else f"files in {folder}", quarantine))
    if not scanned.names:
        raise AgeGenderError(_no_row(table, quarantine) if table else _no_file(folder, quarantine))
    groups = group_duplicates(scanned, duplicates, cache_dir)
    chosen = fold_of(split, fold, folds)
    protocol, split_source = None, None
    if split_file:
        protocol = read_split_file(split_file, scanned.names, set(quarantine))
        split_source = f"file {split_file.name}"
    elif table and listing.splits and split == "content":
        protocol = _sides_of(table, listing.splits, scanned.names)
        split_source = f"table {table.name}"
    elif split == "coral":
        protocol = read_coral(scanned.names, set(quarantine))
    if split == "random":
        sides = random_split(scanned.digests, split_seed, test_fraction)
    elif split == "test":
        sides = np.full(len(scanned.names), "test")
    else:
        sides = assign_splits(scanned.digests, groups, split_seed, test_fraction, val_fraction, protocol, chosen)
    values = np.array([listing.labels[name] for name in scanned.names], np.float32)  # [n, labels]; NaN for None
    return FaceIndex(
        folder=folder,
        names=scanned.names,
        labels=dict(zip(listing.columns, np.ascontiguousarray(values.T), strict=True)),
        digests=scanned.digests,
        duplicates=groups,
        split=sides,
        fingerprint=fingerprint(scanned.digests, sides),
        quarantine=quarantine,
        classes=listing.classes,
        split_source=split_source,
        leak=find_leak(sides, scanned, groups, duplicates, cache_dir),
    )


def _sides_of(table: Path, sides: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Return the split that a table assigns to each image, and log how many it leaves out."""
    chosen = [sides[name] for name in names]
    if UNUSED in chosen:
        log.info("%s gives %d of %d images no split: they are left out", table, chosen.count(UNUSED), len(names))
    return chosen


def _strictly(what: str, quarantine: dict[str, str]) -> str:
    name, reason = min(quarantine.items())
    return (
        f"data.strict=true and {len(quarantine)} of the {what} can't be taken, the first being {name!r}: {reason}. "
        "Fix or remove them, or set data.strict=false to quarantine them."
    )


def _no_row(table: Path, quarantine: dict[str, str]) -> str:
    if not quarantine:
        return f"{table} has no row below its header; give a table that lists images"
    reason = Counter(quarantine.values()).most_common(1)[0][0]
    name = min(name for name in quarantine if quarantine[name] == reason)
    return (
        f"{table} has no usable row: none of its {len(quarantine)} files can be used, {name!r} for "
        f"instance: {reason}. Its paths start from data.dir, or from the table's own folder where data.dir is null"
    )


def _no_file(folder: Path, quarantine: dict[str, str]) -> str:
    nested = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and has_utkface_files(child)]
    if nested:
        return f"no UTKFace-named image directly in {folder}; set data.dir={folder / nested[0]}"
    return (
        f"no UTKFace-named image in {folder} ({len(quarantine)} other files); "
        "data.dir must be the folder that holds files like 26_1_2_20170116172819213.jpg.chip.jpg"
    )
