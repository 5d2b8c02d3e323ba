"""Split rules: training, validation and test."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.data.index.split import (
    SPLITS,
    VAL_AND_TEST,
    Fold,
    assign_splits,
    fingerprint,
    fold_of,
    left_out,
    random_split,
    subsample,
)
from agegender.errors import AgeGenderError

COUNT = 80
GROUPS = st.lists(st.integers(0, COUNT - 1), min_size=COUNT, max_size=COUNT)
SEEDS = st.integers(0, 2**31)
SIDES = st.lists(st.sampled_from([*SPLITS, "unused"]), min_size=COUNT, max_size=COUNT)


def _digests(count: int = COUNT) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def _groups(labels: list[int]) -> NDArray[np.int64]:
    """Number groups as the index does: by the smallest row of a member."""
    return np.array([labels.index(label) for label in labels], dtype=np.int64)


def _split(digests: list[str], groups: NDArray[np.int64], seed: int = 0, **options: Any) -> list[str]:
    """Splits by large shares, so that hardly any drawn example leaves a side empty; those that do are passed over."""
    try:
        sides: list[str] = assign_splits(digests, groups, seed, 0.3, 0.3, **options).tolist()
    except AgeGenderError:
        reject()
    return sides


@given(labels=GROUPS, seed=SEEDS)
@settings(max_examples=25)
def test_split_never_separates_a_group(labels: list[int], seed: int) -> None:
    sides = _split(_digests(), _groups(labels), seed)
    assert len({*zip(labels, sides, strict=True)}) == len(set(labels))


@given(labels=GROUPS, seed=SEEDS, order=st.permutations(range(COUNT)))
@settings(max_examples=20)
def test_split_does_not_depend_on_the_file_order(labels: list[int], seed: int, order: list[int]) -> None:
    digests = _digests()
    before = dict(zip(digests, _split(digests, _groups(labels), seed), strict=True))
    shuffled = [digests[i] for i in order]
    after = _split(shuffled, _groups([labels[i] for i in order]), seed)
    assert dict(zip(shuffled, after, strict=True)) == before


@given(labels=GROUPS, seed=SEEDS, added=st.integers(1, 40))
@settings(max_examples=20)
def test_split_does_not_depend_on_unrelated_images(labels: list[int], seed: int, added: int) -> None:
    digests = _digests(COUNT + added)
    before = _split(digests[:COUNT], _groups(labels), seed)
    more = _groups([*labels, *range(COUNT, COUNT + added)])
    assert _split(digests, more, seed)[:COUNT] == before


def test_split_fractions_are_approximately_met() -> None:
    sides = assign_splits(_digests(20_000), np.arange(20_000), 0, 0.2, 0.1)
    assert abs(np.mean(sides == "test") - 0.2) < 0.01
    assert abs(np.mean(sides == "val") / np.mean(sides != "test") - 0.1) < 0.01
    assert set(sides.tolist()) == set(SPLITS)


def test_val_fraction_does_not_change_the_test_set() -> None:
    digests, groups = _digests(500), np.arange(500)
    few, many = (assign_splits(digests, groups, 0, 0.2, share) for share in (0.1, 0.4))
    assert ((few == "test") == (many == "test")).all()
    assert (many[few == "val"] == "val").all()  # a larger share only adds to it


def test_larger_test_fraction_contains_the_smaller_one() -> None:
    digests, groups = _digests(500), np.arange(500)
    few, many = (assign_splits(digests, groups, 0, share, 0.1) for share in (0.1, 0.3))
    assert (many[few == "test"] == "test").all() and (many == "test").sum() > (few == "test").sum()


def test_test_and_validation_draws_are_independent() -> None:
    """One number for both draws would take validation from a slice next to test, or leave it empty."""
    sides = assign_splits(_digests(5_000), np.arange(5_000), 0, 0.5, 0.5)
    assert abs(np.mean(sides == "val") - 0.25) < 0.03


def test_split_seed_changes_the_split() -> None:
    digests, groups = _digests(500), np.arange(500)
    first, second = (assign_splits(digests, groups, seed, 0.2, 0.1) for seed in (0, 1))
    assert 0.3 < np.mean(first != second) < 0.6


@pytest.mark.parametrize(("test_share", "val_share", "empty"), [(1e-9, 0.5, "test"), (0.5, 1e-9, "val")])
def test_empty_split_is_an_error_that_names_it(test_share: float, val_share: float, empty: str) -> None:
    with pytest.raises(AgeGenderError, match=f"the {empty} split of 80 images is empty") as caught:
        assign_splits(_digests(), np.arange(COUNT), 0, test_share, val_share)
    assert "\n" not in str(caught.value)


def test_single_photograph_cannot_be_split() -> None:
    with pytest.raises(AgeGenderError, match="is empty"):
        assign_splits(_digests(), np.zeros(COUNT, np.int64), 0, 0.2, 0.1)


@given(sides=SIDES, order=st.permutations(range(COUNT)))
@settings(max_examples=20)
def test_fingerprint_does_not_depend_on_the_order(sides: list[str], order: list[int]) -> None:
    digests = _digests()
    shuffled = fingerprint([digests[i] for i in order], np.array([sides[i] for i in order]))
    assert shuffled == fingerprint(digests, np.array(sides))


@given(sides=SIDES, place=st.integers(0, COUNT - 1), other=st.sampled_from([*SPLITS, "unused"]))
@settings(max_examples=20)
def test_fingerprint_changes_with_any_image_and_any_split(sides: list[str], place: int, other: str) -> None:
    digests = _digests()
    whole = fingerprint(digests, np.array(sides))
    moved = [other if i == place else side for i, side in enumerate(sides)]
    assert (fingerprint(digests, np.array(moved)) == whole) == (moved == sides)
    without = [digest for i, digest in enumerate(digests) if i != place]
    assert fingerprint(without, np.array([side for i, side in enumerate(sides) if i != place])) != whole
    assert fingerprint([*digests[:-1], "0" * 64], np.array(sides)) != whole


@given(labels=GROUPS, published=st.lists(st.sampled_from(["train", "train", "test", "unused"]), min_size=COUNT))
@settings(max_examples=20)
def test_protocol_validation_comes_from_its_training_part_only(labels: list[int], published: list[str]) -> None:
    published = published[:COUNT]
    logging.getLogger("agegender").setLevel(logging.ERROR)
    try:
        sides = _split(_digests(), _groups(labels), protocol=published)
    finally:
        logging.getLogger("agegender").setLevel(logging.NOTSET)
    carved = {i for i in range(COUNT) if sides[i] != published[i]}
    assert carved and all((published[i], sides[i]) == ("train", "val") for i in carved)
    parts = {(label, side) for label, side in zip(labels, sides, strict=True) if side in ("train", "val")}
    assert len(parts) == len({label for label, _ in parts})  # copies are carved out together


def test_protocol_with_validation_is_kept_unchanged() -> None:
    published = [("train", "val", "test", "unused")[i % 4] for i in range(COUNT)]
    assert assign_splits(_digests(), np.arange(COUNT), 0, 0.2, 0.1, published).tolist() == published


@given(sides=SIDES, limits=st.tuples(st.integers(3, COUNT), st.integers(3, COUNT)))
@settings(max_examples=40)
def test_limit_is_exact_nested_and_covers_every_split(sides: list[str], limits: tuple[int, int]) -> None:
    if not set(SPLITS) <= set(sides):
        reject()
    digests, split = _digests(), np.array(sides)
    whole = subsample(digests, split, None)
    total = sum(len(rows) for rows in whole.values())
    few, many = (subsample(digests, split, limit) for limit in sorted(limits))
    for limit, subset in zip(sorted(limits), (few, many), strict=True):
        assert sum(len(rows) for rows in subset.values()) == min(limit, total)
        for side, rows in subset.items():
            assert len(rows) >= 1
            assert abs(len(rows) - min(limit, total) * len(whole[side]) / total) < 3
            assert (split[rows] == side).all()  # no picture changes sides
            assert (np.diff(rows) > 0).all()
    for side in SPLITS:
        assert set(few[side].tolist()) <= set(many[side].tolist())


@given(limit=st.integers(3, COUNT), order=st.permutations(range(COUNT)))
@settings(max_examples=20)
def test_limit_does_not_depend_on_the_file_order(limit: int, order: list[int]) -> None:
    digests = _digests()
    split = assign_splits(digests, np.arange(COUNT), 0, 0.3, 0.3)
    shuffled = [digests[i] for i in order]
    one, other = subsample(digests, split, limit), subsample(shuffled, split[order], limit)
    for side in SPLITS:
        assert {digests[row] for row in one[side]} == {shuffled[row] for row in other[side]}


def test_limit_of_none_keeps_every_image_of_a_protocol() -> None:
    split = np.array([("train", "val", "test", "unused")[i % 4] for i in range(COUNT)])
    for limit in (None, 60, 10_000):
        rows = subsample(_digests(), split, limit)
        assert {side: part.tolist() for side, part in rows.items()} == {
            side: list(range(start, COUNT, 4)) for start, side in enumerate(SPLITS)
        }


@pytest.mark.parametrize("limit", [2, 0, -5])
def test_limit_that_leaves_a_split_empty_is_an_error(limit: int) -> None:
    split = assign_splits(_digests(), np.arange(COUNT), 0, 0.3, 0.3)
    with pytest.raises(AgeGenderError, match=f"data.limit={limit} is too small"):
        subsample(_digests(), split, limit)


def _rows(sides: NDArray[np.str_], limit: int | None = None) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in subsample(_digests(len(sides)), sides, limit).items()}


@given(seed=SEEDS, fraction=st.floats(0.05, 0.95), count=st.integers(2, 60))
@settings(max_examples=20)
def test_random_split_tests_and_validates_on_the_same_fraction(seed: int, fraction: float, count: int) -> None:
    rows = _rows(random_split(_digests(count), seed, fraction))
    assert rows["val"] == rows["test"] and 1 <= len(rows["test"]) < count
    assert len(rows["test"]) == min(max(round(fraction * count), 1), count - 1)
    assert sorted(rows["train"] + rows["test"]) == list(range(count))


def test_random_split_separates_copies() -> None:
    digests = [digest for digest in _digests(40) for _ in range(2)]  # each file twice
    sides = random_split(digests, 0, 0.2)
    parted = sum(sides[i] != sides[i + 1] for i in range(0, 80, 2))
    assert parted >= 5  # of 40 pairs, about 12 at random
    assert len(set(sides.tolist())) == 2


@given(seed=SEEDS, order=st.permutations(range(20)))
@settings(max_examples=20)
def test_random_split_depends_on_seed_and_contents_only(seed: int, order: list[int]) -> None:
    digests = _digests(20)
    sides = dict(zip(digests, random_split(digests, seed, 0.3).tolist(), strict=True))
    shuffled = [digests[i] for i in order]
    assert dict(zip(shuffled, random_split(shuffled, seed, 0.3).tolist(), strict=True)) == sides


def test_random_split_changes_with_the_seed() -> None:
    assert random_split(_digests(), 0, 0.2).tolist() != random_split(_digests(), 1, 0.2).tolist()


@given(limit=st.integers(3, 60))
@settings(max_examples=20)
def test_limit_on_a_random_split_keeps_training_and_test(limit: int) -> None:
    sides = random_split(_digests(60), 0, 0.2)
    rows = _rows(sides, limit)
    assert rows["val"] == rows["test"] and len(rows["train"]) + len(rows["test"]) == limit
    assert all(sides[row] == VAL_AND_TEST for row in rows["test"])
    assert abs(len(rows["test"]) - 0.2 * limit) <= 1


@given(labels=GROUPS, seed=SEEDS, parts=st.integers(2, 9))
@settings(max_examples=25)
def test_leave_out_parts_partition_the_images_and_keep_groups_together(
    labels: list[int], seed: int, parts: int
) -> None:
    groups = _groups(labels)
    chosen = np.stack([left_out(_digests(), groups, seed, f"{part}/{parts}") for part in range(parts)])
    assert (chosen.sum(0) == 1).all()
    part_of = chosen.argmax(0).tolist()
    assert len({*zip(labels, part_of, strict=True)}) == len(set(labels))


@given(labels=GROUPS, seed=SEEDS, order=st.permutations(range(COUNT)))
@settings(max_examples=20)
def test_leave_out_part_depends_on_neither_file_order_nor_unrelated_files(
    labels: list[int], seed: int, order: list[int]
) -> None:
    digests, groups = _digests(), _groups(labels)
    whole = left_out(digests, groups, seed, "1/3")
    moved = left_out([digests[place] for place in order], _groups([labels[place] for place in order]), seed, "1/3")
    assert moved.tolist() == whole[order].tolist()
    kept = np.flatnonzero(groups != groups[0])
    fewer = left_out([digests[place] for place in kept], _groups([labels[place] for place in kept]), seed, "1/3")
    assert fewer.tolist() == whole[kept].tolist()


def test_leave_out_parts_are_of_similar_size_and_change_with_the_seed() -> None:
    digests, alone = _digests(3000), np.arange(3000)
    sizes = [int(left_out(digests, alone, 0, f"{part}/5").sum()) for part in range(5)]
    assert sum(sizes) == 3000 and all(500 < size < 700 for size in sizes)
    one, other = (left_out(digests, alone, seed, "0/5") for seed in (0, 1))
    assert 0.1 < (one & other).sum() / one.sum() < 0.3  # as chance would have it
    test = assign_splits(digests, alone, 0, 0.2, 0.1) == "test"
    assert 0.15 < (one & test).sum() / test.sum() < 0.25  # nor is it the split once more


def _folds(labels: list[int], seed: int, count: int, validates: bool = False) -> NDArray[np.str_]:
    """The split of each fold, `[folds, images]`."""
    folds = (Fold(number, count, validates) for number in range(count))
    return np.stack([_split(_digests(), _groups(labels), seed, fold=fold) for fold in folds])


@given(labels=GROUPS, seed=SEEDS, count=st.integers(2, 6))
@settings(max_examples=20)
def test_folds_test_each_image_once_and_keep_groups_together(labels: list[int], seed: int, count: int) -> None:
    sides = _folds(labels, seed, count)
    assert ((sides == "test").sum(0) == 1).all()
    for split in sides.tolist():
        assert set(split) == set(SPLITS)
        assert len({*zip(labels, split, strict=True)}) == len(set(labels))
    validated = sides == "val"
    carved = validated.any(0)
    assert (validated | (sides == "test") | ~carved).all()  # an image validates in every fold that doesn't test it


@given(labels=GROUPS, seed=SEEDS)
@settings(max_examples=20)
def test_benchmark_folds_test_and_validate_each_image_once(labels: list[int], seed: int) -> None:
    sides = _folds(labels, seed, 5, validates=True)
    assert ((sides == "test").sum(0) == 1).all() and ((sides == "val").sum(0) == 1).all()
    assert (np.roll(sides == "test", -1, axis=0) == (sides == "val")).all()  # the next fold validates
    for split in sides.tolist():
        assert len({*zip(labels, split, strict=True)}) == len(set(labels))


@given(labels=GROUPS, seed=SEEDS)
@settings(max_examples=20)
def test_fold_0_of_5_is_the_split_with_a_fifth_as_test_set(labels: list[int], seed: int) -> None:
    digests, groups = _digests(), _groups(labels)
    try:
        plain = assign_splits(digests, groups, seed, 0.2, 0.3)
    except AgeGenderError:
        reject()
    assert assign_splits(digests, groups, seed, 0.7, 0.3, fold=Fold(0, 5)).tolist() == plain.tolist()


def test_folds_have_similar_sizes() -> None:
    digests, groups = _digests(5000), np.arange(5000)
    for count in (2, 5, 10):
        sizes = [
            (assign_splits(digests, groups, 0, 0.2, 0.1, fold=Fold(i, count)) == "test").sum() for i in range(count)
        ]
        assert sum(sizes) == 5000 and all(0.9 < size * count / 5000 < 1.1 for size in sizes)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            ("content", 0, None),
            r"data\.fold=0 data\.folds=None, but data\.split=content has no folds: .*protocol=folds",
        ),
        (("random", None, 5), r"data\.fold=None data\.folds=5, but data\.split=random has no folds"),
        (("folds", None, 5), r"data\.split=folds needs both, as in protocol=folds data\.fold=0 data\.folds=5"),
        (("folds", 2, None), r"data\.split=folds needs both"),
        (("fivefold_benchmark", None, None), r"needs both, as in protocol=fivefold_benchmark"),
        (("folds", 5, 5), r"data\.fold=5 must lie between 0 and 4"),
        (("folds", -1, 3), r"data\.fold=-1 must lie between 0 and 2"),
        (("folds", 0, 1), r"data\.folds=1 must be at least 2"),
        (("fivefold_benchmark", 0, 4), r"data\.folds=4: fivefold_benchmark has 5 folds"),
    ],
)
def test_folds_that_do_not_fit_are_an_error_in_one_line(chosen: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(AgeGenderError, match=message) as caught:
        fold_of(*chosen)
    assert "\n" not in str(caught.value)


def test_fold_of_takes_valid_settings() -> None:
    assert fold_of("content", None, None) is None
    assert fold_of("folds", 2, 3) == Fold(2, 3, validates=False)
    assert fold_of("fivefold_benchmark", 4, 5) == Fold(4, 5, validates=True)


def test_splits_by_rule_are_those_of_earlier_releases() -> None:
    digests, groups = _digests(500), np.arange(500) // 2 * 2
    assert fingerprint(digests, assign_splits(digests, groups, 0, 0.2, 0.1)) == "85e3d51fa12e"
    assert fingerprint(digests, random_split(digests, 0, 0.2)) == "e4613676dc2c"
