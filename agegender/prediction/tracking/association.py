"""Association of boxes: overlap, and the assignment with the largest total overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]  # [boxes, 4]: left, top, right, bottom


def iou(boxes: Boxes, others: Boxes, buffer: float = 0.0) -> NDArray[np.float64]:
    """Return the intersection over union of each pair of boxes, `[boxes, others]`; 0 for boxes without an area.

    Args:
        boxes: `[boxes, 4]`.
        others: `[others, 4]`.
        buffer: Fraction of its width and height by which each box is enlarged at every side. Boxes that moved by more
            than their own size overlap then (Yang et al., "Hard to Track Objects with Irregular Motions and Similar
            Appearances? Make It Easier by Buffering the Matching Space", WACV 2023).
    """
    one, other = (_enlarged(each.reshape(-1, 4), buffer) for each in (boxes, others))
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    union = _area(one)[:, None] + _area(other)[None] - shared
    overlap: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def _enlarged(boxes: Boxes, buffer: float) -> Boxes:
    margin = buffer * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def _area(boxes: Boxes) -> NDArray[np.float64]:
    area: NDArray[np.float64] = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    return area


def assign(overlap: NDArray[np.float64], least: float) -> list[tuple[int, int]]:
    """Return the pairs of rows and columns with the largest total overlap; each row and column is in one pair at most.

    The assignment problem (Kuhn, "The Hungarian Method for the Assignment Problem", Naval Research Logistics 1955), by
    shortest augmenting paths with potentials (Jonker and Volgenant, Computing 1987) in O(rows^2 columns).

    Args:
        overlap: `[rows, columns]`.
        least: Overlap below which two boxes are no pair, above 0.
    """
    valid = np.where(overlap >= least, overlap, 0.0)
    if valid.shape[0] > valid.shape[1]:
        return sorted((row, column) for column, row in assign(overlap.T, least))
    pairs = ((row, column) for column, row in enumerate(_assign_all_rows(-valid)) if row >= 0)
    return sorted(pair for pair in pairs if valid[pair] > 0)


def _assign_all_rows(cost: NDArray[np.float64]) -> list[int]:
    """Return the row of each column in the assignment of all rows with the least cost, -1 for none; rows <= columns."""
    rows, columns = cost.shape
    potential, of_rows = np.zeros(columns + 1), np.zeros(rows)
    matched = np.full(columns + 1, -1)  # the last column is the start of each path
    for row in range(rows):
        matched[columns], column = row, columns
        distance, before = np.full(columns, np.inf), np.full(columns, columns)
        visited = np.zeros(columns + 1, bool)
        while matched[column] >= 0:
            visited[column] = True
            here = matched[column]
            reduced = cost[here] - of_rows[here] - potential[:columns]
            closer = ~visited[:columns] & (reduced < distance)
            distance[closer], before[closer] = reduced[closer], column
            following = int(np.where(visited[:columns], np.inf, distance).argmin())
            step = distance[following]
            of_rows[matched[visited]] += step
            potential[visited] -= step
            distance[~visited[:columns]] -= step
            column = following
        while column != columns:  # along the path, each column gets the row of the one before it
            matched[column], column = matched[before[column]], before[column]
    return [int(row) for row in matched[:columns]]
