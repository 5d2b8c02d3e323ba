"""The page about a data set: its statistics as tables, plots, faces and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agegender.data.index.index import FaceIndex
from agegender.data.index.utkface import LABELS
from agegender.evaluation.explore.plots import (
    FaceSheet,
    plot_classes,
    plot_measure,
    plot_numbers,
    plot_split_ages,
)
from agegender.evaluation.explore.quality import EXTREMES, MEASURED_SIDE
from agegender.evaluation.explore.summary import DataSummary, worst_first
from agegender.evaluation.html.data_notes import data_notes
from agegender.evaluation.html.overview import of_hundred
from agegender.evaluation.html.page import BigNumber, Card, Page, Plot, Section, Table
from agegender.evaluation.statistics.metrics import AGE_BANDS

SIDE = 112  # pixels a side of a face on the page
SHOWN_GROUPS = 24  # duplicate groups side by side
SHOWN_COPIES = 8  # faces of each group: a folder may hold one image a thousand times
SHOWN_CLASSES = 5  # shares in a line
MEASURES = ("mean", "median", "max")  # of the differences within duplicate groups
SHOWN_NAMES = 200  # rows of the quarantine's table

ABOUT_LIGHT = {
    "brightness": "The mean gray level, from 0 (black) to 255 (white); it depends on skin and background as well",
    "contrast": "The standard deviation of the gray levels, 0 for a blank image",
    "sharpness": "The variance of the Laplacian (Pech-Pacheco et al. 2000), high for many edges, low for blur",
}


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
        data_notes(drawn, found.figures["split"]["table"]),
        _sentence(found.figures),
        _numbers(found.figures),
    )


def _sentence(figures: Mapping[str, Any]) -> str:
    """Return the number of faces, the median of each number and the larger of two classes, in a sentence."""
    faces = figures["faces"]
    parts = [f"{faces['images']:,} faces"]
    for name, label in faces["labels"].items():
        known = faces["images"] - faces["missing"][name]
        if known and name in figures["classes"]:
            if len(label) == 2:  # the largest of many classes says little
                most = max(label, key=lambda each: label[each])
                parts.append(f"{of_hundred(label[most] / known)} with the {name} {most}")
        elif known:
            parts.append(f"half of them up to {label['median']:g}{' years old' if name == 'age' else f' in {name}'}")
    return f"{', '.join(parts)}."


def _numbers(figures: Mapping[str, Any]) -> list[BigNumber]:
    copies, split = figures["copies"]["all"], figures["split"]["sides"]
    parts = ", ".join(f"{side['images']:,} for {name}" for name, side in split.items())
    return [
        BigNumber(f"{figures['faces']['images']:,}", "images", parts),
        BigNumber(f"{copies['files']:,}", "files with a copy", f"{copies['groups']:,} photographs"),
        BigNumber(f"{figures['quarantined']['files']:,}", "files left out", "quarantined: unusable name or content"),
    ]


def _facts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    faces, copies = figures["faces"], figures["copies"]["all"]
    disagreeing = ", ".join(f"{count:,} on {name}" for name, count in copies["disagree"].items())
    return [
        ("folder", figures["folder"]),
        *([("table", figures["split"]["table"])] if figures["split"]["table"] else []),
        ("images", f"{faces['images']:,}"),
        ("quarantined", f"{figures['quarantined']['files']:,}"),
        ("duplicate groups", f"{copies['groups']:,}, of {copies['files']:,} files; disagreeing: {disagreeing}"),
        ("split", figures["split"]["fingerprint"]),
        ("protocol", ": ".join(figures["split"][name] for name in ("protocol", "leak") if name in figures["split"])),
        *((name, _describe_label(faces, name, name in figures["classes"])) for name in faces["labels"]),
    ]


def _describe_label(faces: Mapping[str, Any], name: str, is_classes: bool) -> str:
    missing, label = faces["missing"][name], faces["labels"][name]
    if missing == faces["images"]:
        return "none"
    if is_classes:
        shares = [f"{each} {_share(count, faces['images'] - missing)}" for each, count in label.items()]
        text = ", ".join(shares[:SHOWN_CLASSES]) + (", ..." if len(shares) > SHOWN_CLASSES else "")
    else:
        text = f"{label['min']:g} to {label['max']:g}, mean {_number(label['mean'])}, median {label['median']:g}"
    return text + (f"; unknown for {missing:,} images" if missing else "")


def _sections(found: DataSummary, album: FaceSheet, sample: Sequence[int]) -> list[Section]:
    index, figures = found.index, found.figures
    light = [_light(found, album, plot_measure(name, found.measured[name])) for name in ABOUT_LIGHT]
    drawn = f"{len(sample)} random faces in ascending order of age; the same as in plots/samples.png."
    return [
        *(_label(found, name) for name in index.labels),
        Section("Sample", drawn, faces=[[album.card(row) for row in sample]]),
        _quarantine(index, figures["quarantined"]),
        _copies(found, album),
        *light,
        _split(found),
    ]


def _label(found: DataSummary, name: str) -> Section:
    title = name[:1].upper() + name[1:]
    if not _is_known(found, name):
        return Section(title, f"No image has the label {name}.")
    if name not in found.index.classes:
        return Section(title, plots=[plot_numbers(found.index, name)])
    parts = {**found.figures["by_class"][name], "all": found.figures["faces"]}
    return Section(title, tables=[_balance(found, name, parts)], plots=plot_classes(found.index, name))


def _is_known(found: DataSummary, name: str) -> bool:
    faces: Mapping[str, Any] = found.figures["faces"]
    return bool(faces["missing"][name] < faces["images"])


def _balance(found: DataSummary, name: str, parts: Mapping[str, Any]) -> Table:
    """Return a table of parts of the faces: size, centers of the numbers and shares of the classes of other labels.

    Args:
        found: Statistics of the data set.
        name: What the parts are, a label or the split.
        parts: Name of each part -> what `summary.describe` returned, that of all faces as `all`.
    """
    labels = [each for each in found.index.labels if each != name and _is_known(found, each)]
    header, rows = [name, "images", "share"], {part: [part] for part in parts}
    for part, counts in parts.items():
        rows[part] += [f"{counts['images']:,}", _share(counts["images"], parts["all"]["images"])]
    for label in labels:
        classes = found.index.classes.get(label)
        if classes is None:
            header += [f"mean {label}", f"median {label}"]
        else:
            shown = classes[1:] if len(classes) == 2 else classes  # of two, one share says it all
            header += [each if label in LABELS else f"{label}: {each}" for each in shown]
        for part, counts in parts.items():
            values = counts["labels"][label]
            if classes is None:
                rows[part] += [_number(values["mean"]), _number(values["median"])]
            else:
                rows[part] += [_share(values[each], sum(values.values())) for each in shown]
    return Table(header, list(rows.values()))


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
        f"{len(shown)} of {len(found.copies):,} groups are shown, first those whose classes disagree, then the others, "
        "each by descending age difference. index.csv lists all groups."
    )
    known = {name: value for name, value in found.figures["label_noise"].items() if value is not None}
    noise = [
        f"{name.removesuffix('_mae')} MAE {value:.2f}"
        if name.endswith("_mae")
        else f"{name.removesuffix('_acc')} accuracy {100 * value:.1f} %"
        for name, value in known.items()
    ]
    if noise:
        text += (
            f" The best single prediction per photograph has {', '.join(noise)}: bounds set by label noise, which no "
            "model can beat."
        )
    disagree = [f"disagree on {name}" for name in index.labels]
    apart = [f"{measure} {name} apart" for name in index.labels if name not in index.classes for measure in MEASURES]
    table = Table(
        ("copies", "groups", "files", *disagree, *apart),
        [
            [kind, *(f"{count:,}" for count in (part["groups"], part["files"], *part["disagree"].values()))]
            + [_number(values[measure]) for values in part["apart"].values() for measure in MEASURES]
            for kind, part in found.figures["copies"].items()
        ],
        caption="Apart: the highest minus the lowest of a group.",
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


def _split(found: DataSummary) -> Section:
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
    tables, plots = [_balance(found, "split", sides)], []
    if _is_known(found, "age"):
        bands = [
            [side, *(_share(count, part["images"]) for count in part["age_band"].values())]
            for side, part in sides.items()
        ]
        caption = "Percentage of each split's images by age in years."
        tables.append(Table(("split", *AGE_BANDS), bands, caption))
        plots.append(plot_split_ages(found.index, found.rows))
    return Section("Split", text, tables=tables, plots=plots)


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
