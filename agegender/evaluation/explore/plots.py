"""Plots of the page about a data set: ages, genders, groups, split, brightness and sharpness, and a sheet of faces."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agegender.data.index.index import FaceIndex, drop_missing
from agegender.data.index.split import SPLITS
from agegender.data.index.utkface import MISSING
from agegender.data.loading.pixel_cache import DecodeOnRead
from agegender.evaluation.explore.summary import GENDERS
from agegender.evaluation.html.page import Card, Plot, face_uri
from agegender.evaluation.html.plot_style import BLUE, COLORS, GENDER_COLORS, GRAY, new_plot, to_png

YEARS = 5  # bin width where ages are compared; bins of one year would mostly show peaks at rounded ages
INK = (33, 37, 41)


def plot_ages(index: FaceIndex) -> list[Plot]:
    """Draw the histograms of ages, overall and by gender; requires a known age."""
    return [_all_ages(drop_missing(index.age)), _ages_by_gender(index)]


def plot_counts(index: FaceIndex) -> list[Plot]:
    """Draw the number of images by gender, and by group if any group is known."""
    return [_gender_counts(index), *([_group_counts(index)] if len(drop_missing(index.group)) else [])]


def _all_ages(age: NDArray[np.int16]) -> Plot:
    figure, axes = new_plot(width=7.2)
    axes.hist(age, bins=(np.arange(age.min(), age.max() + 2) - 0.5).tolist(), color=BLUE)
    axes.axvline(float(np.median(age)), color=GRAY, linestyle="--", label=f"median {np.median(age):g}")
    axes.set(xlabel="age, years", ylabel="images")
    axes.legend(frameon=False)
    return Plot(
        "ages", "Images by age, one bar a year. Peaks at round ages show that ages were estimated.", to_png(figure)
    )


def _ages_by_gender(index: FaceIndex) -> Plot:
    figure, axes = new_plot(width=7.2)
    parts = [drop_missing(index.age[index.gender == code]) for code in range(len(GENDERS))]
    axes.hist(parts, bins=_age_bins(drop_missing(index.age)), color=GENDER_COLORS, label=GENDERS)
    axes.set(xlabel="age, years", ylabel="images")
    axes.legend(frameon=False)
    return Plot("ages_by_gender", f"Images by age and gender label, {YEARS} years per pair of bars.", to_png(figure))


def _age_bins(age: NDArray[np.int16]) -> list[float]:
    return list(range(int(age.min()) // YEARS * YEARS, int(age.max()) + YEARS + 1, YEARS))


def _gender_counts(index: FaceIndex) -> Plot:
    figure, axes = new_plot(height=2.2)
    counts = [int(np.sum(index.gender == code)) for code in range(len(GENDERS))]
    bars = axes.barh(GENDERS, counts, color=GENDER_COLORS)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(xlabel="images")
    return Plot("gender_counts", "Images by gender label.", to_png(figure))


def _group_counts(index: FaceIndex) -> Plot:
    positions = range(len(index.groups))
    figure, axes = new_plot(height=max(3.0, 0.3 * len(positions)))
    left = np.zeros(len(positions), dtype=np.int64)
    kinds = [*zip(range(len(GENDERS)), GENDERS, GENDER_COLORS, strict=True), (MISSING, "unknown", GRAY)]
    for code, name, color in kinds if MISSING in index.gender else kinds[:-1]:
        counts = np.bincount(drop_missing(index.group[index.gender == code]), minlength=len(positions))
        bars = axes.barh(positions, counts, left=left, color=color, label=name)
        left += counts
    axes.set_yticks(positions, index.groups, parse_math=False)  # group names of a table may hold "$"
    axes.bar_label(bars, [f"{count:,}" for count in left], padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(xlabel="images")
    axes.legend(frameon=False)
    return Plot("group_counts", "Images by group, as named by the data set, and gender label.", to_png(figure))


def plot_age_by_group(index: FaceIndex) -> Plot:
    """Draw a box plot of ages by group; a group without faces has no box."""
    figure, axes = new_plot(width=max(7.2, 0.6 * len(index.groups)))
    ages = [drop_missing(index.age[index.group == code]) for code in range(len(index.groups))]
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
    names = [f"{name}\n{len(age):,}" for name, age in zip(index.groups, ages, strict=True)]
    axes.set_xticks(range(1, len(names) + 1), names, parse_math=False)
    axes.set(ylabel="age, years")
    caption = "Age by group: median (line), mean (ring), middle half (box), 5th to 95th percentile (whiskers)."
    return Plot("age_by_group", caption, to_png(figure))


def plot_split_ages(index: FaceIndex, rows: Mapping[str, NDArray[np.int64]]) -> Plot:
    """Draw the age distributions of all sides of the split in one plot; requires a known age.

    Args:
        index: All faces.
        rows: Side of the split -> rows of the index.
    """
    figure, axes = new_plot(width=7.2)
    bins = _age_bins(drop_missing(index.age))
    for side, color in zip(SPLITS, COLORS, strict=False):
        age = drop_missing(index.age[rows[side]])
        weights = np.full(len(age), 100 / max(len(age), 1))
        axes.hist(age, bins=bins, weights=weights, histtype="step", color=color, label=side, linewidth=1.5)
    axes.set(xlabel="age, years", ylabel="percentage of the split's images")
    axes.legend(frameon=False)
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

    def label(self, row: int) -> str:
        """Return the face's age in years, gender and group; an unknown age or gender is shown as "?"."""
        index = self.index
        age, gender, group = (int(column[row]) for column in (index.age, index.gender, index.group))
        words = ["?" if age == MISSING else str(age), "?" if gender == MISSING else GENDERS[gender]]
        return " ".join([*words, *([] if group == MISSING else [index.groups[group]])])

    def card(self, row: int, *lines: str) -> Card:
        """Return a card of the face, its labels and these lines, with the file name as title."""
        return Card(face_uri(self.picture(row), self.side), (self.label(row), *lines), title=self.index.names[row])

    def sheet(self, rows: Sequence[int], columns: int = 8) -> bytes:
        """Return a PNG of the faces with their labels, in rows of `columns`."""
        cell, caption, columns = self.side + 8, 20, min(columns, len(rows))
        sheet = Image.new("RGB", (columns * cell, -(-len(rows) // columns) * (cell + caption)), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
        for position, row in enumerate(rows):
            left, top = position % columns * cell, position // columns * (cell + caption)
            sheet.paste(self.picture(row), (left + 4, top + 4))
            draw.text((left + cell // 2, top + cell + caption // 2 - 2), self.label(row), INK, font, anchor="mm")
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return buffer.getvalue()
