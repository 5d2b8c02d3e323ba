"""Plots of the page about a data set: labels, split, brightness and sharpness, and a sheet of faces."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agegender.data.index.index import FaceIndex, drop_missing
from agegender.data.index.split import SPLITS
from agegender.data.index.utkface import LABELS
from agegender.data.loading.pixel_cache import DecodeOnRead
from agegender.evaluation.html.page import Card, Plot, face_uri
from agegender.evaluation.html.plot_style import BLUE, COLORS, GRAY, new_plot, to_png

YEARS = 5  # bin width where ages are compared; bins of one year would mostly show peaks at rounded ages
MOST_BARS = 200  # whole numbers over a wider range share bars
FEW_CLASSES = 3  # up to here classes are told apart by color
INK = (33, 37, 41)


def plot_numbers(index: FaceIndex, name: str) -> Plot:
    """Draw the histogram of a label that is a number; requires a known one."""
    values = drop_missing(index.labels[name])
    whole = bool((values == np.floor(values)).all()) and np.ptp(values) <= MOST_BARS
    figure, axes = new_plot(width=7.2)
    axes.hist(values, bins=(np.arange(values.min(), values.max() + 2) - 0.5).tolist() if whole else 50, color=BLUE)
    axes.axvline(float(np.median(values)), color=GRAY, linestyle="--", label=f"median {np.median(values):g}")
    axes.set(ylabel="images")
    axes.set_xlabel("age, years" if name == "age" else name, parse_math=False)
    _add_legend(axes)
    caption = f"Images by {name}."
    if whole:
        caption = f"Images by {name}, one bar each. Peaks at round numbers show that they were estimated."
    return Plot(f"{_file_name(name)}_values", caption, to_png(figure))


def plot_classes(index: FaceIndex, name: str) -> list[Plot]:
    """Draw the number of images by class of a label, and the ages in each class if any is known."""
    return [_counts(index, name), *([_ages(index, name)] if len(drop_missing(index.labels["age"])) else [])]


def _counts(index: FaceIndex, name: str) -> Plot:
    classes, stacked_by = index.classes[name], _find_few_classes(index)
    positions = range(len(classes))
    figure, axes = new_plot(height=max(2.2, 0.3 * len(positions)))
    left = np.zeros(len(positions), dtype=np.int64)
    for part, rows, color in _parts(index, stacked_by if stacked_by != name else None):
        counts = np.bincount(drop_missing(index.labels[name][rows]).astype(np.int64), minlength=len(positions))
        colors = COLORS[: len(positions)] if stacked_by == name else color
        bars = axes.barh(positions, counts, left=left, color=colors, label=part)
        left += counts
    axes.set_yticks(positions, classes, parse_math=False)  # names of a table may hold "$"
    axes.bar_label(bars, [f"{count:,}" for count in left], padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(xlabel="images")
    caption = f"Images by {name}."
    if stacked_by not in (name, None):
        caption = f"Images by {name} and {stacked_by}."
        _add_legend(figure, loc="outside right upper")
    return Plot(f"{_file_name(name)}_counts", caption, to_png(figure))


def _find_few_classes(index: FaceIndex) -> str | None:
    """Return the first label with classes few enough to be told apart by color."""
    few = (name for name, classes in index.classes.items() if len(classes) <= FEW_CLASSES)
    return next((name for name in few if len(drop_missing(index.labels[name]))), None)


def _parts(index: FaceIndex, name: str | None) -> list[tuple[str, NDArray[np.bool_], str]]:
    """Return name, mask `[n]` and color of the faces of each class, and of those without a label."""
    if name is None:
        return [("", np.ones(len(index.names), np.bool_), BLUE)]
    codes = index.labels[name]
    parts = [(each, codes == code, COLORS[code]) for code, each in enumerate(index.classes[name])]
    return [*parts, *([("unknown", np.isnan(codes), GRAY)] if np.isnan(codes).any() else [])]


def _ages(index: FaceIndex, name: str) -> Plot:
    """Draw the ages in each class: histograms of few classes, else boxes; a class without ages has none."""
    classes = index.classes[name]
    figure, axes = new_plot(width=max(7.2, 0.6 * len(classes)))
    ages = [drop_missing(index.labels["age"][index.labels[name] == code]) for code in range(len(classes))]
    if len(classes) <= FEW_CLASSES:
        bins = _age_bins(drop_missing(index.labels["age"]))
        axes.hist(ages, bins=bins, color=COLORS[: len(classes)], label=classes)
        axes.set(xlabel="age, years", ylabel="images")
        _add_legend(axes)
        caption = f"Images by age and {name}, {YEARS} years per group of bars."
        return Plot(f"ages_by_{_file_name(name)}", caption, to_png(figure))
    axes.boxplot(
        ages,
        whis=(5, 95),
        showfliers=False,  # thousands of overlapping points
        showmeans=True,
        patch_artist=True,
        widths=0.6,
        boxprops={"facecolor": "#d0ebff", "edgecolor": BLUE},
        medianprops={"color": BLUE, "linewidth": 2},
        meanprops={"marker": "o", "markerfacecolor": "white", "markeredgecolor": BLUE},
    )
    names = [f"{each}\n{len(age):,}" for each, age in zip(classes, ages, strict=True)]
    axes.set_xticks(range(1, len(names) + 1), names, parse_math=False)
    axes.set(ylabel="age, years")
    caption = f"Age by {name}: median (line), mean (ring), middle half (box), 5th to 95th percentile (whiskers)."
    return Plot(f"ages_by_{_file_name(name)}", caption, to_png(figure))


def _age_bins(age: NDArray[np.float32]) -> list[float]:
    return list(range(int(age.min()) // YEARS * YEARS, int(age.max()) + YEARS + 1, YEARS))


def _file_name(label: str) -> str:
    return re.sub(r"\W+", "_", label)


def _add_legend(owner: Axes | Figure, **options: Any) -> None:
    for text in owner.legend(frameon=False, **options).get_texts():
        text.set_parse_math(False)  # names of a table may hold "$"


def plot_split_ages(index: FaceIndex, rows: Mapping[str, NDArray[np.int64]]) -> Plot:
    """Draw the age distributions of all sides of the split in one plot; requires a known age.

    Args:
        index: All faces.
        rows: Side of the split -> rows of the index.
    """
    figure, axes = new_plot(width=7.2)
    bins = _age_bins(drop_missing(index.labels["age"]))
    for side, color in zip(SPLITS, COLORS, strict=False):
        age = drop_missing(index.labels["age"][rows[side]])
        weights = np.full(len(age), 100 / max(len(age), 1))
        axes.hist(age, bins=bins, weights=weights, histtype="step", color=color, label=side, linewidth=1.5)
    axes.set(xlabel="age, years", ylabel="percentage of the split's images")
    _add_legend(axes)
    return Plot("split_ages", "Ages in each split; the lines of a balanced split coincide.", to_png(figure))


def plot_measure(name: str, values: NDArray[np.float64]) -> Plot:
    """Draw the histogram of one measure, `brightness`, `contrast` or `sharpness`; the last on a logarithmic axis."""
    figure, axes = new_plot(height=3.0)
    logarithmic = name == "sharpness"
    if logarithmic:
        values = np.maximum(values, 1)  # blank images have a sharpness of 0; 1 is far below any photograph's
        axes.hist(values, bins=np.geomspace(values.min() * 0.99, values.max() * 1.01, 60).tolist(), color=BLUE)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.hist(values, bins=np.linspace(0, 256 if name == "brightness" else 128, 65).tolist(), color=BLUE)
    axes.set(xlabel="sharpness (logarithmic)" if logarithmic else f"{name}, gray levels", ylabel="images")
    return Plot(name, f"Images by {name}.", to_png(figure))


class FaceSheet:
    """The faces of an index for display: the central square of each, in color, with its labels."""

    def __init__(self, index: FaceIndex, side: int = 112):
        """Initialize without reading any file.

        Args:
            index: The faces.
            side: Size of the shown faces in pixels.
        """
        self.index, self.side = index, side
        self._pixels = DecodeOnRead(index.folder, index.names, side, grayscale=False)

    def picture(self, row: int) -> Image.Image:
        """Return the face at this row of the index, in RGB.

        Raises:
            AgeGenderError: The file has become unreadable since it was indexed.
        """
        return Image.fromarray(self._pixels.read(np.array([row]))[0])

    def lines(self, row: int) -> list[str]:
        """Return the face's labels: one line for `LABELS`, and one for each further label; "?" if unknown.

        A label that no face has is left out.
        """
        words, lines = [], []
        for name, column in self.index.labels.items():
            if np.isnan(column).all():
                continue
            classes, value = self.index.classes.get(name), column[row]
            word = "?" if np.isnan(value) else f"{value:g}" if classes is None else classes[int(value)]
            if name in LABELS:
                words.append(word)
            else:
                lines.append(f"{name}: {word}")
        return [" ".join(words), *lines]

    def card(self, row: int, *lines: str) -> Card:
        """Return a card of the face, its labels and these lines, with the file name as title."""
        return Card(face_uri(self.picture(row), self.side), (*self.lines(row), *lines), title=self.index.names[row])

    def sheet(self, rows: Sequence[int], columns: int = 8) -> bytes:
        """Return a PNG of the faces with their labels, in rows of `columns`."""
        captions, columns = [self.lines(row) for row in rows], min(columns, len(rows))
        cell, line = self.side + 8, 16
        height = cell + line * len(captions[0]) + 4
        sheet = Image.new("RGB", (columns * cell, -(-len(rows) // columns) * height), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        for position, (row, caption) in enumerate(zip(rows, captions, strict=True)):
            left, top = position % columns * cell, position // columns * height
            sheet.paste(self.picture(row), (left + 4, top + 4))
            for number, text in enumerate(caption):
                draw.text((left + cell // 2, top + cell + line * number + 8), text, INK, font, anchor="mm")
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return buffer.getvalue()
