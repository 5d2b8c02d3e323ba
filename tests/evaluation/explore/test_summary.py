"""What is counted and measured of a data set, against cases worked out by hand."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import FaceIndex
from agegender.data.sources.synthetic import duplicates
from agegender.errors import AgeGenderError
from agegender.evaluation.explore.summary import (
    DuplicateGroup,
    count_straddling,
    describe,
    find_copies,
    find_extremes,
    image_quality,
    label_noise,
    measure_faces,
    summarize,
    summarize_copies,
    worst_first,
)


def index_of(
    labels: list[tuple[int, int, int]], duplicates: list[int], digests: str, split: list[str] | None = None
) -> FaceIndex:
    """An index of faces that no test reads."""
    age, gender, group = (np.array(column) for column in zip(*labels, strict=True))
    return FaceIndex(
        folder=Path("nowhere"),
        names=[f"{number}.jpg" for number in range(len(labels))],
        age=age.astype(np.int16),
        gender=gender.astype(np.int8),
        group=group.astype(np.int8),
        digests=list(digests),
        duplicates=np.array(duplicates, dtype=np.int64),
        split=np.array(split or ["train"] * len(labels)),
        fingerprint="0" * 12,
    )


SIX = index_of(
    [(2, 0, 0), (3, 1, 4), (10, 1, 4), (70, 0, 0), (69, 0, 0), (69, 1, 0)], [0, 0, 2, 3, 3, 3], "abcddd"
)  # a pair of near copies, one face alone, and one picture three times


# Labels


def test_summary_counts_labels_by_age_gender_group_and_band() -> None:
    counts = describe(SIX, np.arange(6))
    assert counts["images"] == 6
    assert counts["age"] == {"mean": pytest.approx(223 / 6, abs=1e-4), "median": 39.5, "min": 2, "max": 70}
    assert counts["gender"] == {"male": 3, "female": 3}
    assert counts["group"] == {"White": 4, "Black": 0, "Asian": 0, "Indian": 0, "Others": 2}
    assert {band: count for band, count in counts["age_band"].items() if count} == {
        **{"0-2": 1, "3-9": 1, "10-19": 1, "60-69": 2, "70+": 1}
    }
    assert describe(SIX, np.array([1, 2]))["group"]["Others"] == 2


def test_summary_of_no_faces_has_no_mean_age() -> None:
    counts = describe(SIX, np.array([], dtype=np.int64))
    assert counts["images"] == 0 and set(counts["age"].values()) == {None} and counts["gender"]["male"] == 0


# Copies


def test_duplicates_are_listed_with_their_label_conflicts() -> None:
    assert find_copies(SIX) == [
        DuplicateGroup(rows=(0, 1), exact=False, years=1, gender=True, group=True),
        DuplicateGroup(rows=(3, 4, 5), exact=True, years=1, gender=True, group=False),
    ]


def test_duplicate_groups_are_summarized_by_label_conflict() -> None:
    copies = [
        DuplicateGroup((0, 1), exact=True, years=0, gender=False, group=False),
        DuplicateGroup((2, 3, 4), exact=True, years=9, gender=True, group=False),
        DuplicateGroup((5, 6), exact=False, years=3, gender=False, group=True),
    ]
    assert summarize_copies(copies) == {
        "groups": 3,
        "files": 7,
        "disagree_on_age": 2,
        "disagree_on_gender": 1,
        "disagree_on_group": 1,
        "years_apart": {"mean": 4.0, "median": 3.0, "max": 9},
    }
    assert summarize_copies([])["years_apart"] == {"mean": None, "median": None, "max": None}


def test_label_noise_is_the_error_of_the_best_constant_per_photograph() -> None:
    # ages 10, 12, 20 (median 12: errors 2, 0, 8) and 30, 40 (35: 5, 5); genders 0, 0, 1 and 1, 1
    labels = [(10, 0, 0), (12, 0, 0), (20, 1, 0), (30, 1, 0), (40, 1, 0), (99, 0, 0)]
    index = index_of(labels, [0, 0, 0, 3, 3, 5], "abcdef")
    assert label_noise(index, find_copies(index)) == {"age_mae": 4.0, "gender_acc": 0.8}
    missing = index_of([(-1, 0, 0), (12, -1, 0)], [0, 0], "ab")
    assert label_noise(missing, find_copies(missing)) == {"age_mae": None, "gender_acc": None}


def copies_apart(on_gender: list[int], on_age: list[int]) -> list[DuplicateGroup]:
    together = [(years, True) for years in on_gender] + [(years, False) for years in on_age]
    return [DuplicateGroup((0, 1), exact=True, years=years, gender=gender, group=False) for years, gender in together]


@pytest.mark.parametrize(
    ("on_gender", "on_age", "shown"),
    [
        ([0, 5], [1, 9], [(5, True), (0, True), (9, False), (1, False)]),
        ([0, 5, 7, 1], [1, 9, 3, 4], [(7, True), (5, True), (9, False), (4, False)]),  # half of the places each
        ([0, 5, 7, 1, 2], [9], [(7, True), (5, True), (2, True), (9, False)]),  # what one side leaves, the other takes
        ([5], [1, 9, 3, 0, 0], [(5, True), (9, False), (3, False), (1, False)]),
        ([], [], []),
    ],
)
def test_duplicate_groups_are_sorted_by_disagreement(
    on_gender: list[int], on_age: list[int], shown: list[tuple[int, bool]]
) -> None:
    chosen = worst_first(copies_apart(on_gender, on_age), 4)
    assert [(one.years, one.gender) for one in chosen] == shown


def test_group_straddles_if_two_splits_hold_it_ignoring_left_out_files() -> None:
    for sides, straddling in (
        (["train"] * 6, 0),
        (["train", "test", "val", "val", "val", "val"], 1),
        (["train", "test", "val", "val", "train", "val"], 2),
        (["train", "unused", "val", "unused", "test", "test"], 0),
        (["train", "val+test", "train", "val+test", "val+test", "val+test"], 1),
    ):
        index = index_of([(1, 0, 0)] * 6, SIX.duplicates.tolist(), "abcddd", sides)
        assert count_straddling(index, find_copies(index)) == straddling, sides


def test_straddling_groups_of_a_protocol_are_counted_with_left_out_files(odd_faces: Path, tmp_path: Path) -> None:
    copy, face = next(iter(duplicates(60, 2).items()))
    others = sorted(path.name for path in odd_faces.glob("*_2018*") if path.name != face)
    with (tmp_path / "protocol.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["file", "split"], [copy, "train"], [face, "test"], [others[0], "val"], [others[1], "test"]]
        )
    module = AgeGenderDataModule(dir=str(odd_faces), split_file=str(tmp_path / "protocol.csv"))
    split = summarize(module.find_index(), module.split_settings, 1).figures["split"]
    sides = {side: part["images"] for side, part in split["sides"].items()}
    assert sides == {"train": 1, "val": 1, "test": 2, "unused": 62} and split["all"]["images"] == 66
    assert split["straddling_groups"] == 1


# Light


def test_brightness_contrast_and_sharpness_match_hand_computation() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 250  # Laplacian of the inner 3 x 3: -1000 in the middle, 250 at its four sides, 0 in the corners
    brightness, contrast, sharpness = image_quality(spot)
    assert brightness == pytest.approx(250 / 25)
    assert contrast == pytest.approx(np.sqrt(250**2 / 25 - 10**2))
    assert sharpness == pytest.approx((1000**2 + 4 * 250**2) / 9)


@pytest.mark.parametrize("gray", [0, 7, 255])
def test_blank_image_has_neither_contrast_nor_sharpness(gray: int) -> None:
    assert image_quality(np.full((8, 8), gray, np.uint8)) == (gray, 0, 0)


def test_linear_gradient_has_contrast_without_sharpness() -> None:
    slope = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    brightness, contrast, sharpness = image_quality(slope)
    assert (brightness, sharpness) == (75, 0) and contrast == pytest.approx(10 * np.sqrt((16**2 - 1) / 12))


def test_image_measures_separate_blurred_dimmed_and_washed_out_copies(faces: Path, tmp_path: Path) -> None:
    source = min(faces.iterdir())
    with Image.open(source) as picture:
        face = picture.convert("RGB")
    changed = {
        "1_0_0_1.png": face,
        "1_0_0_2.png": face.filter(ImageFilter.GaussianBlur(2)),
        "1_0_0_3.png": face.point([level // 2 for level in range(256)] * 3),
        "1_0_0_4.png": face.point([100 + level // 8 for level in range(256)] * 3),
    }
    (tmp_path / "faces").mkdir()
    for name, copy in changed.items():
        copy.save(tmp_path / "faces" / name)
    index = index_of([(1, 0, 0)] * 4, [0, 1, 2, 3], "abcd")
    measured = measure_faces(replace(index, folder=tmp_path / "faces", names=list(changed)))
    sharpness, brightness, contrast = (measured[name] for name in ("sharpness", "brightness", "contrast"))
    assert sharpness[1] < sharpness[0] / 2
    assert brightness[2] == pytest.approx(brightness[0] / 2, abs=1) and brightness.argmin() == 2
    assert contrast[3] == pytest.approx(contrast[0] / 8, abs=1) and contrast.argmin() == 3


def test_outliers_are_the_extremes_of_each_measure() -> None:
    measured = {
        "brightness": np.array([5.0, 1, 9, 7]),
        "contrast": np.array([4.0, 2, 2, 9]),
        "sharpness": np.array([8.0, 7, 6, 5]),
    }
    assert find_extremes(measured, 2) == {
        "darkest": [1, 0],
        "brightest": [2, 3],
        "flattest": [1, 2],
        "blurriest": [3, 2],
    }
    assert len(find_extremes(measured, 10)["darkest"]) == 4


def test_image_missing_since_indexing_is_an_error_in_one_line(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces, tmp_path / "faces")
    module = AgeGenderDataModule(dir=str(tmp_path / "faces"))
    index = module.find_index()
    (tmp_path / "faces" / index.names[3]).unlink()
    with pytest.raises(AgeGenderError, match=f"{index.names[3]} was readable .*start again"):
        summarize(index, module.split_settings, 1)
