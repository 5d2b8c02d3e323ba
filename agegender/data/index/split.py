"""Train, validation and test split, decided by the images' contents and independent of file names and order."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agegender.errors import AgeGenderError, require

SplitRule = Literal["content", "random", "test", "folds", "fivefold_benchmark", "coral"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
UNUSED = "unused"
VAL_AND_TEST = "val+test"  # in both splits at once, under the rule `random`


@dataclass(frozen=True)
class Fold:
    """The test fold of a cross-validation.

    Attributes:
        number: From 0.
        count: Number of folds.
        validates: Whether the next fold (after the last, the first) is the validation set; otherwise it is a fraction
            of all other folds.
    """

    number: int
    count: int
    validates: bool = False


def fold_of(split: SplitRule, fold: int | None, folds: int | None) -> Fold | None:
    """Return the fold that the settings `data.split`, `data.fold` and `data.folds` choose; None for other splits.

    Raises:
        AgeGenderError: The settings don't fit each other.
    """
    given = f"data.fold={fold} data.folds={folds}"
    if split not in ("folds", "fivefold_benchmark"):
        require(fold is None and folds is None, f"{given}, but data.split={split} has no folds: set protocol=folds")
        return None
    if fold is None or folds is None:
        raise AgeGenderError(f"{given}: data.split={split} needs both, as in protocol={split} data.fold=0 data.folds=5")
    require(split == "folds" or folds == 5, f"data.folds={folds}: fivefold_benchmark has 5 folds; set protocol=folds")
    require(folds >= 2, f"data.folds={folds} must be at least 2")
    require(0 <= fold < folds, f"data.fold={fold} must lie between 0 and {folds - 1}: {folds} folds count from 0")
    return Fold(fold, folds, validates=split == "fivefold_benchmark")


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
    fold: Fold | None = None,
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
        fold: Fold of the test images, instead of `test_fraction`. Each image is in one fold: over all folds, each is
            tested once. Fold 0 of 5 is the test set of `test_fraction=0.2`.

    Returns:
        Array of strings `[n]`.

    Raises:
        AgeGenderError: A split would be empty.
    """
    keys = _group_keys(digests, groups)
    if protocol is not None:
        sides = list(protocol)
    elif fold is not None:
        sides = _sides_of_fold(keys, seed, fold)
    else:
        sides = ["test" if _uniform(seed, "test", key) < test_fraction else "train" for key in keys]
    if "val" not in sides:
        carved = [
            side == "train" and _uniform(seed, "val", key) < val_fraction for side, key in zip(sides, keys, strict=True)
        ]
        sides = ["val" if take else side for take, side in zip(carved, sides, strict=True)]
    for name in SPLITS:
        if name not in sides:
            raise AgeGenderError(f"the {name} split of {len(digests)} images is empty; {_remedy(name, protocol)}")
    return np.array(sides)


def _sides_of_fold(keys: Sequence[str], seed: int, fold: Fold) -> list[str]:
    roles = {fold.number: "test"}
    if fold.validates:
        roles[(fold.number + 1) % fold.count] = "val"
    return [roles.get(int(_uniform(seed, "test", key) * fold.count), "train") for key in keys]


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
        queue += [(place / len(part), name, row) for place, row in enumerate(_ranked(digests, part))]
    kept = sorted(queue)[:limit]
    return _by_split(
        {side: np.array(sorted(row for _, at, row in kept if at == side), dtype=np.int64) for side in rows}
    )


def first_rows(digests: Sequence[str], rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` of the rows, decided by content: fewer rows lie within more."""
    return np.array(sorted(_ranked(digests, rows)[:count]), dtype=np.int64)


def _ranked(digests: Sequence[str], rows: NDArray[np.int64]) -> list[int]:
    return sorted(rows.tolist(), key=lambda row: (_uniform(0, "limit", digests[row]), row))


def _by_split(rows: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    none = np.zeros(0, dtype=np.int64)
    return {name: rows.get(name, rows.get(VAL_AND_TEST, none) if name != "train" else none) for name in SPLITS}
