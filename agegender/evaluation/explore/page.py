"""The page about a data set: its statistics as tables, plots, faces and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agegender.data.index.index import FaceIndex
from agegender.evaluation.explore.plots import (
    FaceSheet,
    plot_age_by_group,
    plot_ages,
    plot_counts,
    plot_measure,
    plot_split_ages,
)
from agegender.evaluation.explore.summary import EXTREMES, MEASURED_SIDE, DataSummary, worst_first
from agegender.evaluation.html.page import Card, Page, Plot, Section, Table
from agegender.evaluation.statistics.metrics import AGE_BANDS

SIDE = 112  # pixels a side of a face on the page
SHOWN_GROUPS = 24  # duplicate groups side by side
SHOWN_COPIES = 8  # faces of each group: a folder may hold one image a thousand times
SHOWN_NAMES = 200  # rows of the quarantine's table

ABOUT_LIGHT = {
    "brightness": "The mean gray level, from 0 (black) to 255 (white); it depends on skin and background as well",
    "contrast": "The standard deviation of the gray levels, 0 for a blank image",
    "sharpness": "The variance of the Laplacian (Pech-Pacheco et al. 2000), high for many edges, low for blur",
}
NOTES = (
    "Gender is the data set's binary label, assigned by others from appearance, and not a person's gender identity. "
    "Group names are those of the data set. Ages are largely estimates.",
    "UTKFace's images and labels are for non-commercial research. This page contains images of the data set: do not "
    "publish it.",
)
DRAWN = "These faces and their labels are synthetic: nothing on this page applies to real people."


def build_data_page(found: DataSummary, album: FaceSheet, sample: Sequence[int], *, drawn: bool) -> Page:
    """Return the page about a data set.

    Args:
        found: Statistics of the data set.
        album: Faces of the data set.
        sample: Rows of the index to show as a sample, in that order.
        drawn: Whether the faces are synthetic.
    """
    return Page(
        "What is in the data",
        _facts(found.figures),
        _sections(found, album, sample),
        (DRAWN, *NOTES) if drawn else NOTES,
    )


def _facts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    faces, copies = figures["faces"], figures["copies"]["all"]
    disagreeing = f"{copies['disagree_on_age']:,} disagree on age, {copies['disagree_on_gender']:,} on gender"
    return [
        ("folder", figures["folder"]),
        *([("table", figures["split"]["table"])] if figures["split"]["table"] else []),
        ("images", f"{faces['images']:,}"),
        ("quarantined", f"{figures['quarantined']['files']:,}"),
        ("duplicate groups", f"{copies['groups']:,}, of {copies['files']:,} files; {disagreeing}"),
        ("split", figures["split"]["fingerprint"]),
        ("ages", _ages(faces["age"]) + _unknown(faces["missing"]["age"])),
        ("female", _female(faces) + _unknown(faces["missing"]["gender"])),
    ]


def _ages(age: Mapping[str, float | None]) -> str:
    if age["mean"] is None:
        return "none"
    return f"{age['min']:.0f} to {age['max']:.0f} years, mean {age['mean']:.1f}, median {age['median']:g}"


def _unknown(images: int) -> str:
    return f"; unknown for {images:,} images" if images else ""


def _sections(found: DataSummary, album: FaceSheet, sample: Sequence[int]) -> list[Section]:
    index, figures = found.index, found.figures
    light = [_light(found, album, plot_measure(name, found.measured[name])) for name in ABOUT_LIGHT]
    aged, grouped = figures["faces"]["age"]["mean"] is not None, any(figures["faces"]["group"].values())
    drawn = f"{len(sample)} random faces in ascending order of age; the same as in plots/samples.png."
    return [
        Section("Ages", plots=plot_ages(index)) if aged else Section("Ages", "No image has an age."),
        Section("Genders and groups", tables=[_label_table(figures, grouped)], plots=plot_counts(index)),
        *([Section("Age by group", plots=[plot_age_by_group(index)])] if aged and grouped else []),
        Section("Sample", drawn, faces=[[album.card(row) for row in sample]]),
        _quarantine(index, figures["quarantined"]),
        _copies(found, album),
        *light,
        _split(found, [plot_split_ages(index, found.rows)] if aged else []),
    ]


def _label_table(figures: Mapping[str, Any], grouped: bool) -> Table:
    parts = [
        *figures["by_gender"].items(),
        *(figures["by_group"].items() if grouped else ()),
        ("all", figures["faces"]),
    ]
    rows = [[name, *_size(part, figures["faces"]), _female(part), *_center(part["age"])] for name, part in parts]
    return Table(("", "images", "share", "female", "mean age", "median age"), rows)


def _quarantine(index: FaceIndex, figures: Mapping[str, Any]) -> Section:
    if not index.quarantine:
        return Section("Quarantine", "Nothing was quarantined: every file name was parsed, and every file decodes.")
    names = sorted(index.quarantine.items())
    text = f"{len(names):,} files were excluded."
    if len(names) > SHOWN_NAMES:
        text += (
            f" The first {SHOWN_NAMES} are listed, {len(names) - SHOWN_NAMES:,} more are not; quarantine.csv lists all."
        )
    reasons = Table(("reason", "names"), [[reason, f"{count:,}"] for reason, count in figures["reasons"].items()])
    return Section("Quarantine", text, tables=[reasons, Table(("name", "reason"), names[:SHOWN_NAMES])])


def _copies(found: DataSummary, album: FaceSheet) -> Section:
    if not found.copies:
        return Section("Copies", f"No copies were found (data.duplicates={found.figures['split']['duplicates']}).")
    index, rows = found.index, []
    shown = worst_first(found.copies, SHOWN_GROUPS)
    for one in shown:
        cards = [
            album.card(row, index.split[row], f"sha256 {index.digests[row][:8]}") for row in one.rows[:SHOWN_COPIES]
        ]
        more = len(one.rows) - len(cards)
        rows.append(cards + ([Card("", (f"and {more:,} more",))] if more else []))
    text = (
        "Files that show one photograph. Exact: all files of the group are equal byte for byte; near: not all are. "
        f"{len(shown)} of {len(found.copies):,} groups are shown, first those that disagree on gender, then those that "
        "disagree on age, each by descending age difference. index.csv lists all groups."
    )
    noise = found.figures["label_noise"]
    if noise["age_mae"] is not None and noise["gender_acc"] is not None:
        text += (
            f" The best single prediction per photograph has an age MAE of {noise['age_mae']:.2f} years and a gender "
            f"accuracy of {100 * noise['gender_acc']:.1f} %: a bound set by label noise, which no model can beat."
        )
    columns = ("groups", "files", "disagree_on_age", "disagree_on_gender", "disagree_on_group")
    table = Table(
        ("copies", *(column.replace("_", " ") for column in columns), "mean years apart", "median", "most"),
        [
            [kind, *(f"{part[column]:,}" for column in columns)]
            + [_number(part["years_apart"][name]) for name in ("mean", "median", "max")]
            for kind, part in found.figures["copies"].items()
        ],
        caption="Years apart: highest minus lowest age of a group.",
    )
    return Section("Copies", text, tables=[table], faces=rows)


def _light(found: DataSummary, album: FaceSheet, plot: Plot) -> Section:
    name = plot.name
    kinds = [kind for kind in EXTREMES if kind.measure == name]
    text = (
        f"{ABOUT_LIGHT[name]}. Measured on the central square at {MEASURED_SIDE} x {MEASURED_SIDE} gray pixels. Below: "
    )
    values = found.measured[name]
    return Section(
        name.capitalize(),
        text + ", then ".join(f"the {kind.name}" for kind in kinds) + ".",
        plots=[plot],
        faces=[[album.card(row, f"{name} {values[row]:.1f}") for row in found.extremes[kind.name]] for kind in kinds],
    )


def _split(found: DataSummary, plots: Sequence[Plot]) -> Section:
    split = found.figures["split"]
    sides = {**split["sides"], "all": split["all"]}
    text = f"{split['straddling_groups']:,} of {len(found.copies):,} duplicate groups lie on more than one side."
    if split["split"] == "random":
        text += " Under data.split=random the validation images are the test images."
    if split["split"] == "test":
        text += " Under data.split=test every image is a test image."
    if split["split_source"]:
        text += f" The split is given by the {split['split_source']}."
    if split["limit"] is not None:
        text += f" The sides are reduced by data.limit={split['limit']}."
    balance = [
        [side, *_size(part, sides["all"]), *_center(part["age"]), _female(part)]
        + [_share(count, part["images"]) for count in part["group"].values()]
        for side, part in sides.items()
    ]
    bands = [
        [side, *(_share(count, part["images"]) for count in part["age_band"].values())] for side, part in sides.items()
    ]
    tables = [
        Table(("split", "images", "share", "mean age", "median age", "female", *found.index.groups), balance),
        Table(("split", *AGE_BANDS), bands, caption="Percentage of each split's images by age in years."),
    ]
    return Section("Split", text, tables=tables, plots=plots)


def _size(part: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    return [f"{part['images']:,}", _share(part["images"], whole["images"])]


def _female(part: Mapping[str, Any]) -> str:
    """Return the fraction of female images among those with a known gender, in percent."""
    return _share(part["gender"]["female"], sum(part["gender"].values()))


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _center(age: Mapping[str, float | None]) -> list[str]:
    return [_number(age["mean"]), _number(age["median"])]
