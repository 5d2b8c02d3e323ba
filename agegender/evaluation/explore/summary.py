"""Statistics of a data set: labels, copies whose labels disagree, balance of the split, brightness and sharpness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.index import FaceIndex, drop_missing
from agegender.data.index.split import SPLITS, UNUSED
from agegender.data.index.utkface import MISSING
from agegender.data.loading.pixel_cache import DecodeOnRead
from agegender.evaluation.statistics.metrics import AGE_BANDS, age_bands
from agegender.system.parallel import map_threads

GENDERS = ("male", "female")  # the data set's binary label, by its code
MEASURED_SIDE = 128  # pixels a side at which images are measured; UTKFace's 200 are scaled down, which averages noise


@dataclass(frozen=True)
class OutlierKind:
    """A kind of outlier: the faces with the lowest or the highest values of one measure."""

    name: str
    measure: str
    high: bool = False


EXTREMES = (
    OutlierKind("darkest", "brightness"),
    OutlierKind("brightest", "brightness", high=True),
    OutlierKind("flattest", "contrast"),
    OutlierKind("blurriest", "sharpness"),
)


@dataclass(frozen=True)
class DuplicateGroup:
    """A duplicate group: files that show one photograph, and how far their labels differ.

    Attributes:
        rows: Rows of the index, at least two.
        exact: Whether all files are equal byte for byte.
        years: Highest age minus lowest age, in years.
        gender: Whether their gender labels differ.
        group: Whether their group labels differ.
    """

    rows: tuple[int, ...]
    exact: bool
    years: int
    gender: bool
    group: bool

    @property
    def disagree(self) -> bool:
        """Whether age or gender labels differ."""
        return self.gender or self.years > 0


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
        "groups": list(index.groups),
        "faces": describe(index, np.arange(len(index.names))),
        "by_gender": {name: describe(index, np.flatnonzero(index.gender == i)) for i, name in enumerate(GENDERS)},
        "by_group": {name: describe(index, np.flatnonzero(index.group == i)) for i, name in enumerate(index.groups)},
        "quarantined": {
            "files": len(index.quarantine),
            "reasons": dict(Counter(index.quarantine.values()).most_common()),
        },
        "copies": {name: summarize_copies(part) for name, part in (("exact", exact), ("near", near), ("all", copies))},
        "label_noise": label_noise(index, copies),
        "light": {name: _describe_measure(index, name, measured[name], extremes) for name in measured},
        "split": {
            **settings,
            "split_source": index.split_source,
            "fingerprint": index.fingerprint,
            "straddling_groups": count_straddling(index, copies),
            "sides": {side: describe(index, part) for side, part in rows.items()},
            "all": describe(index, np.unique(np.concatenate(list(rows.values())))),  # `random` has faces on two sides
        },
    }
    return DataSummary(index, rows, copies, measured, extremes, figures)


def describe(index: FaceIndex, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Count some of the faces by label.

    Args:
        index: All faces.
        rows: int64 `[n]`, rows of the index to count.

    Returns:
        `images`; `age` with `mean`, `median`, `min` and `max` in years (None without ages); the number of images by
        `gender`, `group` and `age_band`, with every name present; and the number of `missing` labels, by label.
    """
    age, gender, group = drop_missing(index.age[rows]), index.gender[rows], index.group[rows]
    bands = age_bands(age)
    measures: dict[str, Callable[[NDArray[np.int16]], Any]]
    measures = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}
    return {
        "images": len(rows),
        "age": {name: round(float(of(age)), 4) if len(age) else None for name, of in measures.items()},
        "gender": {name: int(np.sum(gender == code)) for code, name in enumerate(GENDERS)},
        "group": {name: int(np.sum(group == code)) for code, name in enumerate(index.groups)},
        "age_band": {name: int(np.sum(bands == code)) for code, name in enumerate(AGE_BANDS)},
        "missing": {name: int(np.sum(getattr(index, name)[rows] == MISSING)) for name in ("age", "gender", "group")},
    }


def find_copies(index: FaceIndex) -> list[DuplicateGroup]:
    """Return the duplicate groups of two files or more, in the order of their first files."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(index.duplicates.tolist()):
        members.setdefault(group, []).append(row)
    return [
        DuplicateGroup(
            rows=tuple(rows),
            exact=len({index.digests[row] for row in rows}) == 1,
            years=_apart(index.age[rows]),
            gender=_apart(index.gender[rows]) > 0,
            group=_apart(index.group[rows]) > 0,
        )
        for rows in members.values()
        if len(rows) > 1
    ]


def _apart(labels: NDArray[Any]) -> int:
    """Return the highest label minus the lowest; missing labels are ignored."""
    return int(np.ptp(drop_missing(labels))) if len(drop_missing(labels)) else 0


def worst_first(copies: Sequence[DuplicateGroup], count: int) -> list[DuplicateGroup]:
    """Return up to `count` groups: those that disagree on gender, then the others, each by descending age difference.

    If both kinds are numerous, each gets half of the entries.
    """
    ranked = sorted(copies, key=lambda one: -one.years)
    on_gender = [one for one in ranked if one.gender]
    others = [one for one in ranked if not one.gender]
    shown = on_gender[: max(count - len(others), (count + 1) // 2)]
    return (shown + others)[:count]


def summarize_copies(copies: Sequence[DuplicateGroup]) -> dict[str, Any]:
    """Count duplicate groups, their files, and the groups that disagree on each label."""
    years = [one.years for one in copies]
    return {
        "groups": len(copies),
        "files": sum(len(one.rows) for one in copies),
        "disagree_on_age": sum(one.years > 0 for one in copies),
        "disagree_on_gender": sum(one.gender for one in copies),
        "disagree_on_group": sum(one.group for one in copies),
        "years_apart": {
            "mean": round(float(np.mean(years)), 4) if years else None,
            "median": float(np.median(years)) if years else None,
            "max": max(years, default=None),
        },
    }


def label_noise(index: FaceIndex, copies: Sequence[DuplicateGroup]) -> dict[str, float | None]:
    """Estimate the label noise from copies: the score of the best single prediction per photograph.

    A model that predicts one age and one gender for all files of a photograph can't do better on them.

    Returns:
        `age_mae` in years, of the median of a photograph's ages; `gender_acc`, of its more frequent gender. None if no
        photograph has two labels.
    """
    errors: list[float] = []
    correct = labeled = 0
    for one in copies:
        rows = list(one.rows)
        ages, genders = drop_missing(index.age[rows]), drop_missing(index.gender[rows])
        if len(ages) > 1:
            errors += np.abs(ages - np.median(ages)).tolist()
        if len(genders) > 1:
            correct += max(int(genders.sum()), int((1 - genders).sum()))
            labeled += len(genders)
    return {
        "age_mae": round(float(np.mean(errors)), 4) if errors else None,
        "gender_acc": round(correct / labeled, 4) if labeled else None,
    }


def count_straddling(index: FaceIndex, copies: Sequence[DuplicateGroup]) -> int:
    """Count the duplicate groups with images on more than one side of the split; unused images lie on none."""
    return sum(len(set(index.split[list(one.rows)].tolist()) - {UNUSED}) > 1 for one in copies)


def image_quality(gray: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Measure brightness, contrast and sharpness of one image.

    Args:
        gray: Gray levels, uint8 `[height, width]`, at least 3 x 3.

    Returns:
        Brightness, the mean gray level (0..255); contrast, the standard deviation of the levels; and sharpness, the
        variance of the Laplacian (sum of an inner pixel's four neighbors minus four times itself; Pech-Pacheco et al.
        2000).
    """
    levels = gray.astype(np.int32)
    neighbors = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    laplacian = neighbors - 4 * levels[1:-1, 1:-1]
    return float(levels.mean()), float(levels.std()), float(laplacian.var())


def measure_faces(index: FaceIndex) -> dict[str, NDArray[np.float64]]:
    """Measure the central square of every face in gray, at `MEASURED_SIDE` pixels a side, on all cores.

    Returns:
        `brightness`, `contrast` and `sharpness` (see `image_quality`), float64 `[n]` each.

    Raises:
        AgeGenderError: A file has become unreadable since it was indexed.
    """
    pixels = DecodeOnRead(index.folder, index.names, MEASURED_SIDE, grayscale=True)
    rows = range(len(index.names))
    found = list(
        map_threads(lambda row: image_quality(pixels.read(np.array([row]))[0, :, :, 0]), rows, "measuring light")
    )
    columns = np.array(found, dtype=np.float64).T
    return dict(zip(("brightness", "contrast", "sharpness"), columns, strict=True))


def find_extremes(measured: Mapping[str, NDArray[np.float64]], count: int) -> dict[str, list[int]]:
    """Return the rows of the `count` most extreme faces of each of `EXTREMES`, the most extreme first."""
    order = {kind.name: measured[kind.measure] * (-1 if kind.high else 1) for kind in EXTREMES}
    return {name: np.argsort(values, kind="stable")[:count].tolist() for name, values in order.items()}


def _describe_measure(
    index: FaceIndex, name: str, values: NDArray[np.float64], extremes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Return the range and percentiles of a measure, and its outliers with their values."""
    low, median, high = np.percentile(values, (1, 50, 99))
    spread = {"min": values.min(), "percentile_1": low, "median": median, "percentile_99": high, "max": values.max()}
    outliers = {
        kind.name: [{"file": index.names[row], "value": round(float(values[row]), 2)} for row in extremes[kind.name]]
        for kind in EXTREMES
        if kind.measure == name
    }
    return {**{key: round(float(value), 2) for key, value in spread.items()}, **outliers}
