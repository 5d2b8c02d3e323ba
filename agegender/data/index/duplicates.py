"""Group the files that show the same photograph, so that a split can keep them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["THRESHOLD", "THUMBNAIL", "VERSION", "Mode", "find_duplicate_groups"]

Mode = Literal["near", "exact", "none"]

VERSION = 1  # increment it when the same files may get other groups: groups are cached
THUMBNAIL = 24  # side in pixels of the gray thumbnails
THRESHOLD = 0.92  # of the inspected pairs of UTKFace, the best match of two different photographs has 0.909
WINDOW = 5  # side of the neighborhood whose mean is subtracted, which leaves the detail
LEAST_CONTRAST = 1  # gray levels; fainter detail is rounding (the faintest image of UTKFace has 2.2)
BLOCK = 2048  # thumbnails per side of a block of correlations: 16 MiB of float32
CHUNK = 4096  # pairs confirmed at a time: 6 MiB of int16
MARGIN = 1e-3  # float32 products of 400 numbers are off by less than 3e-5


def find_duplicate_groups(
    digests: Sequence[str], thumbnails: NDArray[np.uint8], mode: Mode = "near", threshold: float = THRESHOLD
) -> NDArray[np.int64]:
    """Return the duplicate group of each file.

    Two files are duplicates if they are equal byte for byte or, in the mode `near`, if the detail of their thumbnails
    (each pixel less the mean of its 5 x 5 neighborhood) has a Pearson correlation above the threshold. Detail separates
    better than pixels: two people before a dark background correlate by their outlines alone, and copies of one
    photograph with another exposure or border correlate less. Groups are transitive. A thumbnail without detail, such
    as a blank page, has no near duplicates.

    Candidates are found with float32 products and confirmed with integers, so groups depend neither on the machine nor
    on the order of the files. Time grows with the square of the number of files: the 23,707 of UTKFace take 2 to 6 s
    on two cores, four times as many 90 s. Memory grows linearly, 3 kB a file, plus some 50 MB for a block.

    Args:
        digests: Hash of the bytes of each of the n files, equal for equal bytes.
        thumbnails: uint8 `[n, 24, 24]`, gray, in the same order; equal for equal bytes. Made with a box filter.
        mode: `near` joins equal and nearly equal images, `exact` equal bytes only, `none` nothing.
        threshold: Correlation from 0 to 1 that a pair must exceed in the mode `near`.

    Returns:
        int64 `[n]`, for each file the smallest index of a member of its group; its own index if it is alone.

    Raises:
        ValueError: If the shapes don't match, or if the mode or the threshold is not one of those above.
    """
    count = len(digests)
    shape = (count, THUMBNAIL, THUMBNAIL)
    if thumbnails.shape != shape or thumbnails.dtype != np.uint8:
        raise ValueError(f"thumbnails must be uint8 {shape}, got {thumbnails.dtype} {thumbnails.shape}")
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    if mode == "none":
        return np.arange(count, dtype=np.int64)
    _, first, inverse = np.unique(np.asarray(digests, dtype=np.str_), return_index=True, return_inverse=True)
    groups = first.astype(np.int64)
    if mode == "near":
        _join_near(groups, _detail(thumbnails[first]), threshold)
    return groups[inverse]


def _detail(thumbnails: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return `[n, 400]`: each inner pixel less the mean of its neighborhood, times 25 to stay an integer."""
    side = THUMBNAIL - WINDOW + 1
    border = WINDOW // 2
    inner = thumbnails[:, border : border + side, border : border + side]
    detail = inner.astype(np.int16) * np.int16(WINDOW**2)  # at most 6375 in size
    for top in range(WINDOW):
        for left in range(WINDOW):
            detail -= thumbnails[:, top : top + side, left : left + side]
    return detail.reshape(len(thumbnails), side * side)


def _join_near(groups: NDArray[np.int64], detail: NDArray[np.int16], threshold: float) -> None:
    """Join the groups (one per row of `detail`, in place) whose detail correlates above the threshold."""
    size = detail.shape[1]
    sums = detail.sum(axis=1, dtype=np.int64)
    spreads = size * np.einsum("ij,ij->i", detail, detail, dtype=np.int64) - sums**2  # size^2 times the variance
    visible = np.flatnonzero(spreads >= (size * WINDOW**2 * LEAST_CONTRAST) ** 2)
    standard = detail[visible].astype(np.float32)
    standard -= (sums[visible] / size).astype(np.float32)[:, None]
    standard *= (np.sqrt(size) / np.sqrt(spreads[visible])).astype(np.float32)[:, None]
    for rows, columns in _candidates(standard, threshold - MARGIN):
        a, b = visible[rows], visible[columns]
        apart = groups[a] != groups[b]  # saves most of the work below where most images are alike
        a, b = a[apart], b[apart]
        for start in range(0, len(a), CHUNK):
            x, y = a[start : start + CHUNK], b[start : start + CHUNK]
            products = np.einsum("ij,ij->i", detail[x], detail[y], dtype=np.int64)
            # Integers below 2^53, then one product, root and quotient that IEEE 754 defines to the last bit.
            scales = np.sqrt(spreads[x].astype(np.float64) * spreads[y].astype(np.float64))
            near = (size * products - sums[x] * sums[y]) / scales > threshold
            for i, j in zip(x[near].tolist(), y[near].tolist(), strict=True):
                _join(groups, i, j)


def _candidates(standard: NDArray[np.float32], least: float) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield, block by block, the pairs of rows i < j whose product exceeds `least`."""
    for top in range(0, len(standard), BLOCK):
        for left in range(top, len(standard), BLOCK):
            rows, columns = np.nonzero(standard[top : top + BLOCK] @ standard[left : left + BLOCK].T > least)
            rows, columns = rows + top, columns + left
            above = rows < columns
            yield rows[above], columns[above]


def _join(groups: NDArray[np.int64], i: int, j: int) -> None:
    """Merge the groups of the rows i and j under the smaller group number.

    Renumbering every member keeps `groups` final at all times; there are fewer joins than files, so the cost is small.
    """
    low, high = sorted((groups[i], groups[j]))
    if low != high:
        groups[groups == high] = low
