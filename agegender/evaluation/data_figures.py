"""What a data set holds, in numbers: labels, copies that disagree, the split's balance, the light of each picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.cache import DecodedPixels
from agegender.data.index import FaceIndex, known
from agegender.data.names import MISSING
from agegender.data.split import SPLITS, UNUSED
from agegender.evaluation.measures import AGE_BANDS, age_bands
from agegender.parallel import map_threads

GENDERS = ("male", "female")  # the data set's binary label, by its code
MEASURED_SIDE = 128  # pixels a side at which pictures are measured; of UTKFace's 200, so noise counts for little


@dataclass(frozen=True)
class Extreme:
    """A kind of outlier: the faces at the low or the high end of one measure."""

    name: str
    measure: str
    high: bool = False


EXTREMES = (
    Extreme("darkest", "brightness"),
    Extreme("brightest", "brightness", high=True),
    Extreme("flattest", "contrast"),
    Extreme("blurriest", "sharpness"),
)


@dataclass(frozen=True)
class Copies:
    """Files that show one photograph, and how far their labels differ.

    Attributes:
        rows: Their places in the index, at least two.
        exact: Whether all are equal byte for byte.
        years: The highest age less the lowest.
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
        """Whether age or gender differs."""
        return self.gender or self.years > 0


@dataclass(frozen=True)
class DataSummary:
    """What was found in a data set.

    Attributes:
        index: Its faces, n of them.
        rows: Side of the split -> places of its faces, as far as a training would use them.
        copies: Its duplicate groups.
        measured: `brightness`, `contrast` and `sharpness`, float64 `[n]` each (see `measure_light`).
        extremes: Name of each of `EXTREMES` -> places of its faces, the furthest out first.
        figures: All of it in plain numbers, as in explore.json.
    """

    index: FaceIndex
    rows: dict[str, NDArray[np.int64]]
    copies: list[Copies]
    measured: dict[str, NDArray[np.float64]]
    extremes: dict[str, list[int]]
    figures: dict[str, Any]


def summarise(index: FaceIndex, settings: Mapping[str, Any], outliers: int) -> DataSummary:
    """Reads every face and counts what there is.

    Args:
        index: The faces.
        settings: `AgeGenderDataModule.split_settings`; goes into the figures.
        outliers: Faces of each kind of outlier.

    Raises:
        AgeGenderError: A file became unreadable since it was indexed.
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
        "copies": {name: summarise_copies(part) for name, part in (("exact", exact), ("near", near), ("all", copies))},
        "label_noise": label_noise(index, copies),
        "light": {name: _describe_measure(index, name, measured[name], extremes) for name in measured},
        "split": {
            **settings,
            "given": index.given,
            "fingerprint": index.fingerprint,
            "straddling_groups": count_straddling(index, copies),
            "sides": {side: describe(index, part) for side, part in rows.items()},
            "all": describe(index, np.unique(np.concatenate(list(rows.values())))),  # `random` has faces on two sides
        },
    }
    return DataSummary(index, rows, copies, measured, extremes, figures)


def describe(index: FaceIndex, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Counts some of the faces by label.

    Args:
        index: All faces.
        rows: int64 `[n]`, the places of those to count.

    Returns:
        `images`; `age` with `mean`, `median`, `min` and `max` in years (None without ages); the number of images by
        `gender`, `group` and `age_band`, every name present; and of those whose label is `missing`, by label.
    """
    age, gender, group = known(index.age[rows]), index.gender[rows], index.group[rows]
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


def find_copies(index: FaceIndex) -> list[Copies]:
    """Returns the duplicate groups of two files or more, in the order of their first files."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(index.duplicates.tolist()):
        members.setdefault(group, []).append(row)
    return [
        Copies(
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
    """Returns the highest label less the lowest; one that is not known disagrees with none."""
    return int(np.ptp(known(labels))) if len(known(labels)) else 0


def worst_first(copies: Sequence[Copies], count: int) -> list[Copies]:
    """Chooses the groups to look at: those that disagree on gender, then the others, each by their years apart.

    Where both are many, each gets half of the places.
    """
    ranked = sorted(copies, key=lambda one: -one.years)
    on_gender = [one for one in ranked if one.gender]
    others = [one for one in ranked if not one.gender]
    shown = on_gender[: max(count - len(others), (count + 1) // 2)]
    return (shown + others)[:count]


def summarise_copies(copies: Sequence[Copies]) -> dict[str, Any]:
    """Counts duplicate groups: how many, of how many files, and how many disagree on what."""
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


def label_noise(index: FaceIndex, copies: Sequence[Copies]) -> dict[str, float | None]:
    """Returns what the best answers score on the copies: one age and one gender for all files of a photograph.

    No model can do better there, so this is the floor that the labels' own noise sets, as far as copies tell.

    Returns:
        `age_mae` in years, of the median of a photograph's ages; `gender_acc`, of its more frequent gender. None if no
        photograph has two labels.
    """
    errors: list[float] = []
    right = told = 0
    for one in copies:
        rows = list(one.rows)
        ages, genders = known(index.age[rows]), known(index.gender[rows])
        if len(ages) > 1:
            errors += np.abs(ages - np.median(ages)).tolist()
        if len(genders) > 1:
            right, told = right + max(int(genders.sum()), int((1 - genders).sum())), told + len(genders)
    return {
        "age_mae": round(float(np.mean(errors)), 4) if errors else None,
        "gender_acc": round(right / told, 4) if told else None,
    }


def count_straddling(index: FaceIndex, copies: Sequence[Copies]) -> int:
    """Counts the duplicate groups that lie on more than one side of the split; pictures left out lie on none."""
    return sum(len(set(index.split[list(one.rows)].tolist()) - {UNUSED}) > 1 for one in copies)


def measure_light(grey: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Measures the light of one picture.

    Args:
        grey: uint8 `[height, width]`, at least 3 x 3.

    Returns:
        Brightness, the mean grey level (0..255); contrast, the levels' standard deviation; and sharpness, the variance
        of the Laplacian (each inner pixel's four neighbours less four times itself; Pech-Pacheco et al. 2000).
    """
    levels = grey.astype(np.int32)
    neighbours = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:]
    laplacian = neighbours - 4 * levels[1:-1, 1:-1]
    return float(levels.mean()), float(levels.std()), float(laplacian.var())


def measure_faces(index: FaceIndex) -> dict[str, NDArray[np.float64]]:
    """Measures every face in grey, its central square at `MEASURED_SIDE` pixels a side, on all cores.

    Returns:
        `brightness`, `contrast` and `sharpness` (see `measure_light`), float64 `[n]` each.

    Raises:
        AgeGenderError: A file became unreadable since it was indexed.
    """
    pixels = DecodedPixels(index.folder, index.names, MEASURED_SIDE, grayscale=True)
    rows = range(len(index.names))
    found = list(
        map_threads(lambda row: measure_light(pixels.read(np.array([row]))[0, :, :, 0]), rows, "measuring light")
    )
    columns = np.array(found, dtype=np.float64).T
    return dict(zip(("brightness", "contrast", "sharpness"), columns, strict=True))


def find_extremes(measured: Mapping[str, NDArray[np.float64]], count: int) -> dict[str, list[int]]:
    """Returns, for each kind of `EXTREMES`, the places of the `count` faces furthest out, the furthest first."""
    order = {kind.name: measured[kind.measure] * (-1 if kind.high else 1) for kind in EXTREMES}
    return {name: np.argsort(values, kind="stable")[:count].tolist() for name, values in order.items()}


def _describe_measure(
    index: FaceIndex, name: str, values: NDArray[np.float64], extremes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Returns a measure's spread, and each of its outliers with its value."""
    low, median, high = np.percentile(values, (1, 50, 99))
    spread = {"min": values.min(), "percentile_1": low, "median": median, "percentile_99": high, "max": values.max()}
    outliers = {
        kind.name: [{"file": index.names[row], "value": round(float(values[row]), 2)} for row in extremes[kind.name]]
        for kind in EXTREMES
        if kind.measure == name
    }
    return {**{key: round(float(value), 2) for key, value in spread.items()}, **outliers}
