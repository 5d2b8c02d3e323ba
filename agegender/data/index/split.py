"""Train, validation and test split, decided by the images' contents and independent of file names and order."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agegender.errors import AgeGenderError, require

log = logging.getLogger(__name__)

SplitRule = Literal["content", "random", "test"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
UNUSED = "unused"
VAL_AND_TEST = "val+test"  # in both splits at once, under the rule `random`


def _uniform(seed: int, purpose: str, digest: str) -> float:
    """Return a number in [0, 1) that depends only on the seed, the purpose and the image's content."""
    hashed = hashlib.sha256(f"{seed}:{purpose}:{digest}".encode()).digest()
    return int.from_bytes(hashed[:8], "big") / 2**64


def assign_splits(
    digests: Sequence[str],
    groups: NDArray[np.int64],
    seed: int,
    test_fraction: float,
    val_fraction: float,
    protocol: Sequence[str] | None = None,
) -> NDArray[np.str_]:
    """Assign each image to `train`, `val` or `test`; images of one duplicate group stay together.

    A group's split is decided by hashing its smallest digest with the seed. So the assignment doesn't depend on the
    order of the files, their names, the platform or unrelated files: an added image moves only its own copies. The
    price is that the fractions are met on average, not exactly (on UTKFace: within half a point).

    Args:
        digests: SHA-256 of each image.
        groups: Duplicate group of each image.
        seed: Seed of the split.
        test_fraction: Fraction of all images.
        val_fraction: Fraction of the images that are not in test.
        protocol: Published split of each image (`train`, `val`, `test`, `unused`) instead of the hashed one. If it has
            no validation images, they are taken from its training images.

    Returns:
        Array of strings `[n]`.

    Raises:
        AgeGenderError: A split would be empty.
    """
    keys = _group_keys(digests, groups)
    if protocol is None:
        sides = ["test" if _uniform(seed, "test", key) < test_fraction else "train" for key in keys]
    else:
        sides = list(protocol)
        _report_leak(sides, groups)
    if "val" not in sides:
        carved = [
            side == "train" and _uniform(seed, "val", key) < val_fraction for side, key in zip(sides, keys, strict=True)
        ]
        sides = ["val" if take else side for take, side in zip(carved, sides, strict=True)]
    for name in SPLITS:
        if name not in sides:
            raise AgeGenderError(f"the {name} split of {len(digests)} images is empty; {_remedy(name, protocol)}")
    return np.array(sides)


def _group_keys(digests: Sequence[str], groups: NDArray[np.int64]) -> list[str]:
    """Return the smallest digest of each image's duplicate group."""
    smallest: dict[int, str] = {}
    for digest, group in zip(digests, groups.tolist(), strict=True):
        smallest[group] = min(digest, smallest.get(group, digest))
    return [smallest[group] for group in groups.tolist()]


def left_out(digests: Sequence[str], groups: NDArray[np.int64], seed: int, part: str) -> NDArray[np.bool_]:
    """Return a mask `[n]` of the images in one of n parts; images of one duplicate group stay together.

    As with the split, a group's part is decided by hashing its smallest digest with the seed, so the parts have equal
    sizes on average. The parts are disjoint, and every image is in one of them.

    Args:
        digests: SHA-256 of each image.
        groups: Duplicate group of each image.
        seed: Seed of the split.
        part: `i/n`, i from 0 to n - 1.

    Raises:
        AgeGenderError: `part` is malformed or out of range.
    """
    written = re.fullmatch(r"([0-9]+)/([0-9]+)", part)
    number, parts = (int(written[1]), int(written[2])) if written else (0, 0)
    require(
        parts >= 2 and number < parts,
        f"data.leave_out={part} must be i/n, counted from 0: 0/5 to 4/5 for five parts",
    )
    keys = _group_keys(digests, groups)
    return np.array([int(_uniform(seed, "part", key) * parts) == number for key in keys], dtype=np.bool_)


def _remedy(empty: str, protocol: Sequence[str] | None) -> str:
    if protocol is None or (empty == "val" and "train" in protocol):
        return "give more images, or change data.test_fraction, data.val_fraction or data.split_seed"
    return "the given split names none for it; with fit=false, data.split=test takes every image as a test image"


def random_split(digests: Sequence[str], seed: int, test_fraction: float) -> NDArray[np.str_]:
    """Split at random, file by file, as published notebooks do; for comparison only.

    Copies of a photograph end up in both splits, and the test images are the validation images too, so they select the
    epoch: both make the scores optimistic.

    Args:
        digests: SHA-256 of each image.
        seed: Seed of the split.
        test_fraction: Fraction of all images, met exactly.

    Returns:
        `train` or `val+test` for each image, a function of the seed and the contents only.
    """
    seen: Counter[str] = Counter()
    places = []
    for digest in digests:  # a second file of the same bytes is placed independently
        places.append(_uniform(seed, f"random {seen[digest]}", digest))
        seen[digest] += 1
    require(len(digests) > 1, "one image can't be split; give more images")
    tested = min(max(round(test_fraction * len(digests)), 1), len(digests) - 1)
    sides = np.full(len(digests), "train", dtype=f"<U{len(VAL_AND_TEST)}")
    sides[np.argsort(places, kind="stable")[:tested]] = VAL_AND_TEST
    return sides


def _report_leak(sides: Sequence[str], groups: NDArray[np.int64]) -> None:
    """Log the number of test images of a published protocol with a copy among its training images."""
    training = {group for side, group in zip(sides, groups.tolist(), strict=True) if side in ("train", "val")}
    leaked = sum(side == "test" and group in training for side, group in zip(sides, groups.tolist(), strict=True))
    if leaked:
        log.warning(
            "the given split: %d test images have a copy in its training part; its figures are flattered", leaked
        )


def read_split_file(path: Path, names: Sequence[str], quarantined: set[str]) -> list[str]:
    """Read a published protocol: CSV with a header and the columns `file` and `split` (train, val or test).

    Args:
        path: The CSV file.
        names: The readable images, in the index's order.
        quarantined: Rejected files of the folder, which a protocol may name.

    Returns:
        The split of each name; `unused` for an image that the protocol doesn't list.

    Raises:
        AgeGenderError: The file is missing or malformed, or names images that are not in the folder.
    """
    if not path.is_file():
        raise AgeGenderError(f"data.split_file={path} does not exist")
    sides: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:  # Excel writes a byte order mark
        reader = csv.DictReader(file)
        if not {"file", "split"} <= set(reader.fieldnames or ()):
            raise AgeGenderError(f"{path} needs a header line with the columns file, split; it has {reader.fieldnames}")
        for row in reader:
            if row["split"] not in SPLITS:
                raise AgeGenderError(f"{path}, line {reader.line_num}: split {row['split']!r} is not one of {SPLITS}")
            name = Path(row["file"] or "").name
            if sides.setdefault(name, row["split"]) != row["split"]:
                raise AgeGenderError(f"{path}, line {reader.line_num}: {name!r} is in {sides[name]} and {row['split']}")
    missing = sorted(set(sides) - set(names) - quarantined)
    if missing:
        raise AgeGenderError(f"{path} names {len(missing)} images that are not in the folder, the first {missing[0]!r}")
    unused = sum(name not in sides for name in names)
    if unused:
        log.info("%s does not list %d of %d images: they are left out", path, unused, len(names))
    return [sides.get(name, UNUSED) for name in names]


def fingerprint(digests: Sequence[str], split: NDArray[np.str_]) -> str:
    """Return the split's fingerprint: 12 hexadecimal digits over all images and their splits, without file names."""
    lines = sorted(f"{digest}:{side}\n" for digest, side in zip(digests, split.tolist(), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def subsample(digests: Sequence[str], split: NDArray[np.str_], limit: int | None) -> dict[str, NDArray[np.int64]]:
    """Return each split's rows; with a limit, a fixed subset of that many images in the same proportions.

    The subset is decided by content: a smaller limit's subset lies within a larger one's, and no image changes its
    split.
    """
    sides = [side for side in (*SPLITS, VAL_AND_TEST) if side in split]
    rows = {side: np.flatnonzero(split == side) for side in sides}
    total = sum(len(part) for part in rows.values())
    if limit is None or limit >= total:
        return _by_split(rows)
    if limit < (1 if sides == ["test"] else len(SPLITS)):
        raise AgeGenderError(f"data.limit={limit} is too small: each of {', '.join(SPLITS)} needs at least one image")
    # A limit is a prefix of one queue over all splits, in which a split's k-th image has the position k / size. So the
    # first image of each split comes first, and a larger limit removes nothing.
    queue: list[tuple[float, str, int]] = []
    for name, part in rows.items():
        ranked = sorted(part.tolist(), key=lambda row: (_uniform(0, "limit", digests[row]), row))
        queue += [(place / len(part), name, row) for place, row in enumerate(ranked)]
    kept = sorted(queue)[:limit]
    return _by_split(
        {side: np.array(sorted(row for _, at, row in kept if at == side), dtype=np.int64) for side in rows}
    )


def _by_split(rows: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    none = np.zeros(0, dtype=np.int64)
    return {name: rows.get(name, rows.get(VAL_AND_TEST, none) if name != "train" else none) for name in SPLITS}
