"""The plots of a data set can be drawn of whatever a folder holds."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import FaceIndex
from agegender.evaluation.explore.plots import (
    FaceSheet,
    plot_classes,
    plot_measure,
    plot_numbers,
    plot_split_ages,
)


@pytest.fixture(scope="module")
def index(faces: Path) -> FaceIndex:
    """The index of 120 drawn faces."""
    return AgeGenderDataModule(dir=str(faces)).find_index()


def picture_of(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.convert("RGB")


@pytest.mark.parametrize("age", [0, 116])
def test_plots_of_one_face_are_drawn(age: int, index: FaceIndex) -> None:
    """One class, one number, empty sides of the split: no warning either."""
    labels = {
        name: np.array([value], np.float32) for name, value in {"age": age, "gender": 1, "group": 3, "cm": 1.5}.items()
    }
    alone, none = replace(index, labels=labels, names=["x"]), np.zeros(0, np.int64)
    plots = [*plot_classes(alone, "gender" if age else "group"), plot_numbers(alone, "age"), plot_numbers(alone, "cm")]
    plots += [plot_split_ages(alone, {"train": np.array([0]), "val": none, "test": none})]
    plots += [] if age else [plot_measure(name, np.array([0.0])) for name in ("brightness", "contrast", "sharpness")]
    assert len({plot.name for plot in plots}) == len(plots) >= 5
    assert all(min(picture_of(plot.png).size) > 100 for plot in plots)


def test_plots_of_further_labels_take_any_name_and_missing_labels(index: FaceIndex) -> None:
    word = np.where(np.arange(120) % 3, np.arange(120) % 2, np.nan).astype(np.float32)
    classes = index.classes | {"a/b $x_": ("$\\frac$", "no")}
    found = replace(index, labels=index.labels | {"a/b $x_": word, "$y^": word * 1000}, classes=classes)
    plots = [*plot_classes(found, "a/b $x_"), plot_numbers(found, "$y^")]
    assert [plot.name for plot in plots] == ["a_b_x__counts", "ages_by_a_b_x_", "_y__values"]
    unaged = replace(found, labels=found.labels | {"age": np.full(120, np.nan, np.float32)})
    assert [plot.name for plot in plot_classes(unaged, "gender")] == ["gender_counts"]


def test_plot_is_deterministic_for_its_data(index: FaceIndex) -> None:
    first, again = plot_classes(index, "group"), plot_classes(index, "group")
    ages = index.labels["age"] + np.where(index.labels["group"] == 2, 9, 0).astype(np.float32)
    older = plot_classes(replace(index, labels=index.labels | {"age": ages}), "group")
    assert first == again and first[0] == older[0] and first[1].png != older[1].png


def test_sheet_shows_faces_row_by_row_above_their_labels(index: FaceIndex) -> None:
    album, rows = FaceSheet(index), [5, 50, 7]
    sheet = np.asarray(picture_of(album.sheet(rows, columns=2))).astype(int)
    assert sheet.shape == (2 * (120 + 20), 2 * 120, 3)
    for row, (left, top) in zip(rows, ((0, 0), (120, 0), (0, 140)), strict=True):
        assert (sheet[top + 4 : top + 116, left + 4 : left + 116] == np.asarray(album.picture(row))).all()
        assert (sheet[top + 120 : top + 140, left : left + 120] < 128).any(), "no label under the face"
    assert (sheet[140:, 120:] == 255).all(), "something in the empty place"


def test_sheet_and_card_have_a_line_for_each_further_label(index: FaceIndex) -> None:
    smile = np.full(120, np.nan, np.float32)
    smile[0] = 1
    labels = index.labels | {"smile": smile, "cm": smile * 1.5, "nothing": np.full(120, np.nan, np.float32)}
    album = FaceSheet(replace(index, labels=labels, classes=index.classes | {"smile": ("no", "yes")}))
    assert album.lines(0)[1:] == ["smile: yes", "cm: 1.5"] and album.lines(1)[1:] == ["smile: ?", "cm: ?"]
    assert album.card(0, "more").lines == (*album.lines(0), "more")
    assert picture_of(album.sheet([0, 1])).size == (2 * 120, 120 + 3 * 16 + 4)


def test_card_carries_the_labels_and_the_file_name(index: FaceIndex) -> None:
    card = FaceSheet(index).card(4, "more")
    age, gender, group = map(int, index.names[4].split("_")[:3])
    names = ("male", "female"), ("White", "Black", "Asian", "Indian", "Others")
    assert card.lines == (f"{age} {names[0][gender]} {names[1][group]}", "more") and card.title == index.names[4]
    assert card.uri.startswith("data:image/jpeg;base64,")
