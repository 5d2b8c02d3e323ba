"""What is counted of a data set, against cases worked out by hand."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import FaceIndex
from agegender.data.sources.synthetic import duplicates
from agegender.errors import AgeGenderError
from agegender.evaluation.explore.summary import (
    DuplicateGroup,
    count_straddling,
    describe,
    find_copies,
    label_noise,
    summarize,
    summarize_copies,
    worst_first,
)

NAN = float("nan")


def index_of(
    labels: Sequence[tuple[float, float, float]], duplicates: list[int], digests: str, split: list[str] | None = None
) -> FaceIndex:
    """An index of faces that no test reads."""
    return FaceIndex(
        folder=Path("nowhere"),
        names=[f"{number}.jpg" for number in range(len(labels))],
        labels=dict(zip(("age", "gender", "group"), np.array(labels, np.float32).T, strict=True)),
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
    assert counts["labels"] == {
        "age": {"mean": pytest.approx(223 / 6, abs=1e-4), "median": 39.5, "min": 2, "max": 70},
        "gender": {"male": 3, "female": 3},
        "group": {"White": 4, "Black": 0, "Asian": 0, "Indian": 0, "Others": 2},
    }
    assert {band: count for band, count in counts["age_band"].items() if count} == {
        **{"0-2": 1, "3-9": 1, "10-19": 1, "60-69": 2, "70+": 1}
    }
    assert describe(SIX, np.array([1, 2]))["labels"]["group"]["Others"] == 2


def test_summary_counts_further_labels_and_missing_ones() -> None:
    labels = SIX.labels | {"smile": np.array([1, 0, NAN, 1, NAN, 1]), "height": np.array([1.5, 2, NAN, NAN, NAN, NAN])}
    counts = describe(replace(SIX, labels=labels, classes=SIX.classes | {"smile": ("no", "yes")}), np.arange(5))
    assert counts["labels"]["smile"] == {"no": 1, "yes": 2}
    assert counts["labels"]["height"] == {"mean": 1.75, "median": 1.75, "min": 1.5, "max": 2}
    assert counts["missing"] == {"age": 0, "gender": 0, "group": 0, "smile": 2, "height": 3}


def test_summary_of_no_faces_has_no_mean_age() -> None:
    counts = describe(SIX, np.array([], dtype=np.int64))
    assert counts["images"] == 0 and set(counts["labels"]["age"].values()) == {None}
    assert counts["labels"]["gender"]["male"] == 0


# Copies


def test_duplicates_are_listed_with_their_label_conflicts() -> None:
    assert find_copies(SIX) == [
        DuplicateGroup(rows=(0, 1), exact=False, apart={"age": 1}, differ=("age", "gender", "group")),
        DuplicateGroup(rows=(3, 4, 5), exact=True, apart={"age": 1}, differ=("age", "gender")),
    ]


def test_duplicate_groups_are_summarized_by_label_conflict() -> None:
    copies = [
        DuplicateGroup((0, 1), exact=True, apart={"age": 0}, differ=()),
        DuplicateGroup((2, 3, 4), exact=True, apart={"age": 9}, differ=("age", "gender")),
        DuplicateGroup((5, 6), exact=False, apart={"age": 3}, differ=("age", "group")),
    ]
    assert summarize_copies(SIX, copies) == {
        "groups": 3,
        "files": 7,
        "disagree": {"age": 2, "gender": 1, "group": 1},
        "apart": {"age": {"mean": 4.0, "median": 3.0, "max": 9}},
    }
    assert summarize_copies(SIX, [])["apart"]["age"] == {"mean": None, "median": None, "max": None}


def test_label_noise_is_the_error_of_the_best_constant_per_photograph() -> None:
    # ages 10, 12, 20 (median 12: errors 2, 0, 8) and 30, 40 (35: 5, 5); genders 0, 0, 1 and 1, 1
    labels = [(10, 0, 0), (12, 0, 0), (20, 1, 0), (30, 1, 0), (40, 1, 0), (99, 0, 0)]
    index = index_of(labels, [0, 0, 0, 3, 3, 5], "abcdef")
    assert label_noise(index, find_copies(index)) == {"age_mae": 4.0, "gender_acc": 0.8, "group_acc": 1.0}
    missing = index_of([(NAN, 0, 1), (12, NAN, 0)], [0, 0], "ab")
    assert label_noise(missing, find_copies(missing)) == {"age_mae": None, "gender_acc": None, "group_acc": 0.5}


def copies_apart(on_class: list[int], on_age: list[int]) -> list[DuplicateGroup]:
    kinds = [(years, ("age", "group")) for years in on_class] + [(years, ("age",)) for years in on_age]
    return [DuplicateGroup((0, 1), exact=True, apart={"age": years}, differ=differ) for years, differ in kinds]


@pytest.mark.parametrize(
    ("on_class", "on_age", "shown"),
    [
        ([0, 5], [1, 9], [(5, True), (0, True), (9, False), (1, False)]),
        ([0, 5, 7, 1], [1, 9, 3, 4], [(7, True), (5, True), (9, False), (4, False)]),  # half of the places each
        ([0, 5, 7, 1, 2], [9], [(7, True), (5, True), (2, True), (9, False)]),  # what one side leaves, the other takes
        ([5], [1, 9, 3, 0, 0], [(5, True), (9, False), (3, False), (1, False)]),
        ([], [], []),
    ],
)
def test_duplicate_groups_are_sorted_by_disagreement(
    on_class: list[int], on_age: list[int], shown: list[tuple[int, bool]]
) -> None:
    chosen = worst_first(copies_apart(on_class, on_age), 4)
    assert [(one.apart["age"], "group" in one.differ) for one in chosen] == shown


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
    assert split["protocol"] == "file protocol.csv"
    assert (split["leak/test"], split["leak/training"], split["leak/with_copy"]) == (2, 2, 1)


def test_image_missing_since_indexing_is_an_error_in_one_line(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces, tmp_path / "faces")
    module = AgeGenderDataModule(dir=str(tmp_path / "faces"))
    index = module.find_index()
    (tmp_path / "faces" / index.names[3]).unlink()
    with pytest.raises(AgeGenderError, match=f"{index.names[3]} was readable .*start again"):
        summarize(index, module.split_settings, 1)
