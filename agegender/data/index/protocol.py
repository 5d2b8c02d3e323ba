"""Name of a split's protocol, and its leak: test images with a copy of the same photograph in the training part."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.duplicates import Mode
from agegender.data.index.scan import ScanResult, group_duplicates
from agegender.data.index.split import VAL_AND_TEST

log = logging.getLogger(__name__)

_SEARCHED = 50_000  # images: near copies are found in half a minute, and the time grows with the square

_NAMES = {"content": "clean"}  # rules of `data.split` whose protocol has another name
_COPIES = {"coral": "none", "random": None}  # `data.duplicates` of a protocol; None for any. All others have `near`
_REMARKS = {
    "random": "the test faces choose the epoch too, so the metrics are optimistic: for comparison only",
    "coral": "validation comes from its training faces",
    "folds": "fold {fold} of {folds}, counted from 0",
    "fivefold_benchmark": "fold {fold} of 5, counted from 0; its published lists are not available, so the folds are "
    "by content, copies together",
}


@dataclass(frozen=True)
class Leak:
    """Leak of a split.

    Attributes:
        test: Number of test images.
        training: Number of training and validation images that are not test images.
        with_copy: Number of test images with a copy among these.
        near: Whether near copies count; otherwise byte-identical ones only.
    """

    test: int
    training: int
    with_copy: int
    near: bool = True

    def __str__(self) -> str:
        """Return the leak in words."""
        if not self.training:
            return f"all {self.test:,} faces are test faces"
        exact = "" if self.near else "byte-identical "
        if not self.with_copy:
            return f"no test face has a {exact}copy in training"
        verb = "has" if self.with_copy == 1 else "have"
        return (
            f"{self.with_copy:,} of {self.test:,} test faces {verb} a {exact}copy among the {self.training:,} training "
            "faces"
        )


@dataclass(frozen=True)
class Protocol:
    """How the images were split.

    Attributes:
        name: See `protocol_name`.
        leak: The leak; None in a pack that was written before it was counted.
        remark: What else to know about the results; may be empty.
    """

    name: str
    leak: Leak | None = None
    remark: str = ""

    def __str__(self) -> str:
        """Return name, leak and remark in one line."""
        details = [str(part) for part in (self.leak, self.remark) if part]
        return f"{self.name}{': ' * bool(details)}{'; '.join(details)}"

    def results(self) -> dict[str, Any]:
        """Return the entries of `metrics.json`: the name, and the leak in words and numbers."""
        if self.leak is None:
            return {"protocol": self.name}
        numbers = {f"leak/{name}": getattr(self.leak, name) for name in ("test", "training", "with_copy")}
        return {"protocol": self.name, "leak": str(self.leak), **numbers}

    def log(self) -> None:
        """Log the line, as a warning if the test images were seen in training."""
        warns = self.name.startswith("random") or (self.leak is not None and self.leak.with_copy > 0)
        log.log(logging.WARNING if warns else logging.INFO, "protocol %s", self)


def count_leak(sides: Sequence[str] | NDArray[np.str_], groups: NDArray[np.int64], near: bool = True) -> Leak:
    """Count the test images with a copy in the training part, validation included.

    Args:
        sides: `[n]`, the split of each image, see `FaceIndex`.
        groups: `[n]`, the duplicate group of each image.
        near: Whether the groups join near copies.
    """
    sides = np.asarray(sides)
    test = np.isin(sides, ("test", VAL_AND_TEST))
    training = np.isin(sides, ("train", "val"))
    leaked = np.isin(groups[test], groups[training])
    return Leak(int(test.sum()), int(training.sum()), int(leaked.sum()), near)


def find_leak(
    sides: NDArray[np.str_], scanned: ScanResult, groups: NDArray[np.int64], mode: Mode, cache_dir: Path
) -> Leak:
    """Count the leak by near copies even if the split ignores them; by exact ones among more than 50,000 images.

    Args:
        sides: `[n]`, the split of each image.
        scanned: The images.
        groups: `[n]`, their duplicate groups in the mode of the split.
        mode: The mode of the split.
        cache_dir: Folder of the cached search for near copies.
    """
    if mode == "near" or not np.isin(sides, ("train", "val")).any():
        return count_leak(sides, groups)
    near = len(scanned.names) <= _SEARCHED
    return count_leak(sides, group_duplicates(scanned, "near" if near else "exact", cache_dir), near)


def protocol_of(settings: Mapping[str, Any], split_source: str | None, leak: Leak | None) -> Protocol:
    """Return the protocol of a split, by the settings that decided it.

    The name is that of `conf/protocol`, or the source of a given split. Where a setting was changed that the protocol
    is known by, the name includes it: `clean with data.duplicates=exact`.

    Args:
        settings: Settings of the split, see `AgeGenderDataModule.split_settings`.
        split_source: See `FaceIndex`.
        leak: The leak, if it was counted.
    """
    rule, duplicates = settings["split"], settings["duplicates"]
    name = split_source or _NAMES.get(rule, rule)
    changed = []
    if not split_source and duplicates != (usual := _COPIES.get(rule, "near")) and usual is not None:
        changed.append(f"data.duplicates={duplicates}")
    if rule == "coral" and (ages := list(settings["age_range"])) != [21, 60]:
        changed.append(f"data.age_range={ages}")
    remark = "" if split_source else _REMARKS.get(rule, "").format_map(settings)
    return Protocol(name + " with " * bool(changed) + " and ".join(changed), leak, remark)
