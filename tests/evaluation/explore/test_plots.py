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
    plot_age_by_group,
    plot_ages,
    plot_counts,
    plot_measure,
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
    """One gender, one group, one age, empty sides of the split: no warning either."""
    one, none = np.array([age], np.int16), np.zeros(0, np.int64)
    alone = replace(index, age=one, gender=np.array([1], np.int8), group=np.array([3], np.int8), names=["x"])
    plots = [*plot_ages(alone), *plot_counts(alone), plot_age_by_group(alone)]
    plots += [plot_split_ages(alone, {"train": np.array([0]), "val": none, "test": none})]
    plots += [plot_measure(name, np.array([0.0])) for name in ("brightness", "contrast", "sharpness")]
    assert len({plot.name for plot in plots}) == 9
    assert all(min(picture_of(plot.png).size) > 100 for plot in plots)


def test_plot_is_deterministic_for_its_data(index: FaceIndex) -> None:
    first, again = plot_age_by_group(index), plot_age_by_group(index)
    older = plot_age_by_group(replace(index, age=index.age + np.where(index.group == 2, 9, 0).astype(np.int16)))
    assert first == again and first.png != older.png


def test_sheet_shows_faces_row_by_row_above_their_labels(index: FaceIndex) -> None:
    album, rows = FaceSheet(index), [5, 50, 7]
    sheet = np.asarray(picture_of(album.sheet(rows, columns=2))).astype(int)
    assert sheet.shape == (2 * (120 + 20), 2 * 120, 3)
    for row, (left, top) in zip(rows, ((0, 0), (120, 0), (0, 140)), strict=True):
        assert (sheet[top + 4 : top + 116, left + 4 : left + 116] == np.asarray(album.picture(row))).all()
        assert (sheet[top + 120 : top + 140, left : left + 120] < 128).any(), "no label under the face"
    assert (sheet[140:, 120:] == 255).all(), "something in the empty place"


def test_card_carries_the_labels_and_the_file_name(index: FaceIndex) -> None:
    card = FaceSheet(index).card(4, "more")
    age, gender, group = map(int, index.names[4].split("_")[:3])
    names = ("male", "female"), ("White", "Black", "Asian", "Indian", "Others")
    assert card.lines == (f"{age} {names[0][gender]} {names[1][group]}", "more") and card.title == index.names[4]
    assert card.uri.startswith("data:image/jpeg;base64,")
