"""Overlap of boxes, and the assignment with the largest total overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agegender.prediction.tracking.association import assign, iou


def boxes(*edges: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array(edges, np.float64).reshape(-1, 4)


@pytest.mark.parametrize(
    ("one", "other", "buffer", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 0.0, 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 0.0, 50 / 150),
        ((0, 0, 10, 10), (5, 5, 15, 15), 0.0, 25 / 175),
        ((0, 0, 10, 20), (0, 0, 10, 10), 0.0, 1 / 2),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.0, 4 / 100),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0, 0.0),
        ((0, 0, 10, 10), (30, 30, 40, 40), 0.0, 0.0),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.5, 200 / 600),  # -5 to 15 and 5 to 25, both from -5 to 15 in height
        ((0, 0, 10, 10), (30, 0, 40, 10), 0.5, 0.0),
        ((3, 3, 3, 3), (3, 3, 3, 3), 0.0, 0.0),
    ],
)
def test_iou_equals_the_hand_computed_value(
    one: tuple[float, ...], other: tuple[float, ...], buffer: float, expected: float
) -> None:
    pair = np.array([one], np.float64), np.array([other], np.float64)
    assert iou(*pair, buffer)[0, 0] == pytest.approx(expected)
    assert iou(*pair[::-1], buffer)[0, 0] == pytest.approx(expected)


def test_iou_has_a_row_for_each_box_and_a_column_for_each_other() -> None:
    found = iou(boxes((0, 0, 2, 2), (2, 0, 4, 2)), boxes((0, 0, 2, 2), (1, 0, 3, 2), (9, 9, 10, 10)))
    assert found == pytest.approx(np.array([[1, 1 / 3, 0], [0, 1 / 3, 0]]))
    assert iou(boxes(), boxes((0, 0, 1, 1))).shape == (0, 1)


def test_assign_prefers_the_largest_total_to_the_largest_pair() -> None:
    # greedily 0.9 is first, and the second row is left with 0.1: together 1.0 and not 1.5
    assert assign(np.array([[0.9, 0.8], [0.7, 0.1]]), 0.1) == [(0, 1), (1, 0)]


def test_assign_leaves_pairs_below_the_least_overlap_out() -> None:
    assert assign(np.array([[0.6, 0.0], [0.5, 0.19]]), 0.2) == [(0, 0)]
    assert assign(np.array([[0.2]]), 0.2) == [(0, 0)]
    assert assign(np.zeros((3, 2)), 0.2) == assign(np.zeros((0, 2)), 0.2) == []


@given(st.integers(0, 5), st.integers(0, 5), st.randoms(use_true_random=False))
def test_assign_has_the_total_of_the_best_permutation(rows: int, columns: int, random: object) -> None:
    draw = random.choice  # type: ignore[attr-defined]
    overlap = np.array([[draw((0.0, 0.1, 0.25, 0.3, 0.5, 0.9)) for _ in range(columns)] for _ in range(rows)])
    overlap = overlap.reshape(rows, columns)
    pairs = assign(overlap, 0.2)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(overlap[pair] >= 0.2 for pair in pairs)
    side = max(rows, columns)
    square = np.zeros((side, side))
    square[:rows, :columns] = np.where(overlap >= 0.2, overlap, 0)
    best = max(sum(square[row, column] for row, column in enumerate(p)) for p in itertools.permutations(range(side)))
    assert sum(overlap[pair] for pair in pairs) == pytest.approx(best)
