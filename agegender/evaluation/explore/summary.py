"""Statistics of a data set: labels, copies whose labels disagree, and balance of the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agegender.data.index.index import FaceIndex, drop_missing
from agegender.data.index.protocol import protocol_of
from agegender.data.index.split import SPLITS, UNUSED
from agegender.evaluation.explore.quality import describe_quality, find_extremes, measure_faces
from agegender.evaluation.statistics.metrics import AGE_BANDS, age_bands


@dataclass(frozen=True)
class DuplicateGroup:
    """A duplicate group: files that show one photograph, and how far their labels differ.

    Attributes:
        rows: Rows of the index, at least two.
        exact: Whether all files are equal byte for byte.
        apart: Name of each label that is a number -> highest minus lowest one.
        differ: Names of the labels that differ.
    """

    rows: tuple[int, ...]
    exact: bool
    apart: Mapping[str, float]
    differ: tuple[str, ...]


@dataclass(frozen=True)
class DataSummary:
    """The statistics of a data set.

    Attributes:
        index: The n faces.
        rows: Side of the split -> rows of the index that a training would use.
        copies: Duplicate groups of two files or more.
        measured: `brightness`, `contrast` and `sharpness`, float64 `[n]` each (see `image_quality`).
        extremes: Name of each of `EXTREMES` -> rows of the index, the most extreme first.
        figures: All statistics as plain values, as written to explore.json.
    """

    index: FaceIndex
    rows: dict[str, NDArray[np.int64]]
    copies: list[DuplicateGroup]
    measured: dict[str, NDArray[np.float64]]
    extremes: dict[str, list[int]]
    figures: dict[str, Any]


def summarize(index: FaceIndex, settings: Mapping[str, Any], outliers: int) -> DataSummary:
    """Read every face and compute the statistics of the data set.

    Args:
        index: The faces.
        settings: `AgeGenderDataModule.split_settings`; included in `figures`.
        outliers: Number of faces of each kind of outlier.

    Raises:
        AgeGenderError: A file has become unreadable since it was indexed.
    """
    measured, copies = measure_faces(index), find_copies(index)
    extremes = find_extremes(measured, outliers)
    rows: dict[str, NDArray[np.int64]] = {side: index.rows(side, settings["limit"]) for side in SPLITS}
    if UNUSED in index.split:
        rows[UNUSED] = np.flatnonzero(index.split == UNUSED)
    exact = [one for one in copies if one.exact]
    near = [one for one in copies if not one.exact]
    figures = {
        "folder": str(index.folder),
        "classes": {name: list(classes) for name, classes in index.classes.items()},
        "faces": describe(index, np.arange(len(index.names))),
        "by_class": {name: _by_class(index, name) for name in index.classes},
        "quarantined": {
            "files": len(index.quarantine),
            "reasons": dict(Counter(index.quarantine.values()).most_common()),
        },
        "copies": {
            name: summarize_copies(index, part) for name, part in (("exact", exact), ("near", near), ("all", copies))
        },
        "label_noise": label_noise(index, copies),
        "light": {name: describe_quality(index, name, measured[name], extremes) for name in measured},
        "split": {
            **settings,
            "split_source": index.split_source,
            "fingerprint": index.fingerprint,
            **protocol_of(settings, index.split_source, index.leak).results(),
            "straddling_groups": count_straddling(index, copies),
            "sides": {side: describe(index, part) for side, part in rows.items()},
            "all": describe(index, np.unique(np.concatenate(list(rows.values())))),  # `random` has faces on two sides
        },
    }
    return DataSummary(index, rows, copies, measured, extremes, figures)


def _by_class(index: FaceIndex, name: str) -> dict[str, Any]:
    codes = index.labels[name]
    return {each: describe(index, np.flatnonzero(codes == code)) for code, each in enumerate(index.classes[name])}


def describe(index: FaceIndex, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Count some of the faces by label.

    Args:
        index: All faces.
        rows: int64 `[n]`, rows of the index to count.

    Returns:
        `images`; in `labels`, `mean`, `median`, `min` and `max` of each number (None without any), and the number of
        images by class of each other label, with every class present; the number of images by `age_band`; and the
        number of `missing` labels, by label.
    """
    known = {name: drop_missing(column[rows]) for name, column in index.labels.items()}
    bands = age_bands(known["age"])
    return {
        "images": len(rows),
        "labels": {
            name: _measure(values, "mean", "median", "min", "max")
            if name not in index.classes
            else {each: int(np.sum(values == code)) for code, each in enumerate(index.classes[name])}
            for name, values in known.items()
        },
        "age_band": {name: int(np.sum(bands == code)) for code, name in enumerate(AGE_BANDS)},
        "missing": {name: len(rows) - len(values) for name, values in known.items()},
    }


def _measure(values: ArrayLike, *measures: str) -> dict[str, float | None]:
    """Return numpy's measures of the values, to four decimals; None without values."""
    return {name: round(float(getattr(np, name)(values)), 4) if np.size(values) else None for name in measures}


def find_copies(index: FaceIndex) -> list[DuplicateGroup]:
    """Return the duplicate groups of two files or more, in the order of their first files."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(index.duplicates.tolist()):
        members.setdefault(group, []).append(row)
    return [_compare(index, rows) for rows in members.values() if len(rows) > 1]


def _compare(index: FaceIndex, rows: list[int]) -> DuplicateGroup:
    """Return the duplicate group of these rows; missing labels are ignored."""
    known = {name: drop_missing(column[rows]) for name, column in index.labels.items()}
    apart = {name: float(np.ptp(values)) if len(values) else 0.0 for name, values in known.items()}
    return DuplicateGroup(
        rows=tuple(rows),
        exact=len({index.digests[row] for row in rows}) == 1,
        apart={name: difference for name, difference in apart.items() if name not in index.classes},
        differ=tuple(name for name, difference in apart.items() if difference > 0),
    )


def worst_first(copies: Sequence[DuplicateGroup], count: int) -> list[DuplicateGroup]:
    """Return up to `count` groups: those whose classes differ, then the others, each by descending age difference.

    If both kinds are numerous, each gets half of the entries.
    """
    ranked = sorted(copies, key=lambda one: -one.apart["age"])
    differing = [one for one in ranked if set(one.differ) - set(one.apart)]
    others = [one for one in ranked if set(one.differ) <= set(one.apart)]
    shown = differing[: max(count - len(others), (count + 1) // 2)]
    return (shown + others)[:count]


def summarize_copies(index: FaceIndex, copies: Sequence[DuplicateGroup]) -> dict[str, Any]:
    """Count duplicate groups, their files, and the groups that disagree on each label."""
    apart = {name: [one.apart[name] for one in copies] for name in index.labels if name not in index.classes}
    return {
        "groups": len(copies),
        "files": sum(len(one.rows) for one in copies),
        "disagree": {
            name: sum(one.apart.get(name, 0) > 0 or name in one.differ for one in copies) for name in index.labels
        },
        "apart": {name: _measure(differences, "mean", "median", "max") for name, differences in apart.items()},
    }


def label_noise(index: FaceIndex, copies: Sequence[DuplicateGroup]) -> dict[str, float | None]:
    """Estimate the label noise from copies: the score of the best single prediction per photograph.

    A model that predicts the same for all files of a photograph can't do better on them.

    Returns:
        `<label>_mae` of the median of a photograph's numbers, `<label>_acc` of its most frequent class. None if no
        photograph has two labels.
    """
    noise: dict[str, float | None] = {}
    for name, column in index.labels.items():
        known = [values for one in copies if len(values := drop_missing(column[list(one.rows)])) > 1]
        if name in index.classes:
            best = [np.bincount(values.astype(np.int64)).max() / len(values) for values in known]
            accuracy = np.average(best, weights=[len(values) for values in known]) if known else None
            noise[f"{name}_acc"] = None if accuracy is None else round(float(accuracy), 4)
        else:
            errors = [np.abs(values - np.median(values)) for values in known]
            noise[f"{name}_mae"] = _measure(np.concatenate(errors) if errors else [], "mean")["mean"]
    return noise


def count_straddling(index: FaceIndex, copies: Sequence[DuplicateGroup]) -> int:
    """Count the duplicate groups with images on more than one side of the split; unused images lie on none."""
    return sum(len(set(index.split[list(one.rows)].tolist()) - {UNUSED}) > 1 for one in copies)
