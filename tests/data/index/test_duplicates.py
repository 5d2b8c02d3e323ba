"""Duplicate search: the files that count as one photograph."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agegender.data.index import duplicates
from agegender.data.index.duplicates import THRESHOLD, THUMBNAIL, Mode, find_duplicate_groups

INNER = slice(2, -2)  # the pixels of a thumbnail that have a whole neighborhood


def _different(count: int) -> list[str]:
    return [hashlib.sha256(bytes([number])).hexdigest() for number in range(count)]


def _noise(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((THUMBNAIL, THUMBNAIL))


def _picture(values: NDArray[np.float64], contrast: float = 30) -> NDArray[np.uint8]:
    return np.clip(np.rint(128 + contrast * values), 0, 255).astype(np.uint8)


def _turned(degrees: float) -> NDArray[np.uint8]:
    """Returns a picture that correlates with `_turned(0)` by about the cosine of the angle."""
    angle = np.deg2rad(degrees)
    return _picture(np.cos(angle) * _noise(1) + np.sin(angle) * _noise(2))


def _photograph(seed: int) -> Image.Image:
    """Draws 200 x 200 smooth pixels, about as detailed as a face."""
    coarse = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((200, 200), Image.Resampling.BICUBIC)


def _thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    gray = image.convert("RGB").convert("L")
    return np.asarray(gray.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def _encoded(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=quality)
    return Image.open(content)


def _moved(image: Image.Image, pixels: int) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), pixels, axis=(0, 1)))


def _groups(pictures: list[NDArray[np.uint8]], threshold: float = THRESHOLD) -> list[int]:
    groups: list[int] = find_duplicate_groups(
        _different(len(pictures)), np.stack(pictures), threshold=threshold
    ).tolist()
    return groups


def _detail(thumbnail: NDArray[np.uint8]) -> list[int]:
    windows = np.lib.stride_tricks.sliding_window_view(thumbnail.astype(np.int64), (5, 5))
    detail: list[int] = (25 * thumbnail[INNER, INNER].astype(np.int64) - windows.sum(axis=(2, 3))).ravel().tolist()
    return detail


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(_detail(a), _detail(b))[0, 1])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: _encoded(image, 40), id="re-encoded"),
        pytest.param(lambda image: _moved(image, 1), id="moved by a pixel"),
        pytest.param(lambda image: _encoded(_moved(image, -1), 75), id="moved and re-encoded"),
        pytest.param(lambda image: image.convert("L"), id="gray"),
        pytest.param(lambda image: image.point(lambda value: 0.6 * value + 60), id="paler"),
        pytest.param(lambda image: image.resize((80, 80)).resize((200, 200)), id="blurred"),
    ],
)
def test_changed_copy_is_grouped_with_its_original_only(change: Callable[[Image.Image], Image.Image]) -> None:
    originals = [_photograph(seed) for seed in range(8)]
    copies = [change(image) for image in originals]
    assert _groups([_thumbnail(image) for image in originals + copies]) == [*range(8), *range(8)]


def test_copy_under_other_lighting_is_found() -> None:
    original = _picture(_noise(1), contrast=20)
    slope = np.linspace(-50, 50, THUMBNAIL)
    copy = np.clip(np.rint(original + slope), 0, 255).astype(np.uint8)
    assert np.corrcoef(original.ravel(), copy.ravel())[0, 1] < THRESHOLD  # the pixels alone would have missed it
    assert _groups([original, copy]) == [0, 0]


def test_images_with_equal_outlines_only_are_not_grouped() -> None:
    rows, columns = np.mgrid[:THUMBNAIL, :THUMBNAIL]
    outline = 1.5 * np.exp(-((rows - 12) ** 2 + (columns - 9) ** 2) / 60)
    one, other = (_picture(outline + 0.1 * _noise(seed), contrast=60) for seed in (1, 2))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > THRESHOLD  # the pixels alone would have joined them
    assert _groups([one, other]) == [0, 1]


def test_near_copies_are_grouped_transitively() -> None:
    ends, middle = [_turned(0), _turned(36)], _turned(18)
    assert _groups(ends) == [0, 1]
    assert _groups([*ends, middle]) == [0, 0, 0]


def test_equal_bytes_and_near_copies_link_into_one_group() -> None:
    digests = ["a", "b", "b", "c"]
    thumbnails = np.stack([_turned(0), _turned(18), _turned(18), _turned(36)])
    assert find_duplicate_groups(digests, thumbnails).tolist() == [0, 0, 0, 0]


def test_group_is_numbered_by_its_smallest_index() -> None:
    thumbnails = np.stack([_picture(_noise(seed)) for seed in (3, 4, 5, 4, 3)])
    assert find_duplicate_groups(["z", "y", "x", "b", "a"], thumbnails).tolist() == [0, 1, 2, 1, 0]


def test_exact_mode_groups_equal_bytes_only() -> None:
    thumbnails = np.stack([_turned(0)] * 4)
    assert find_duplicate_groups(["b", "a", "b", "c"], thumbnails, "exact").tolist() == [0, 1, 0, 3]


def test_none_mode_groups_nothing() -> None:
    assert find_duplicate_groups(["a", "a", "a"], np.stack([_turned(0)] * 3), "none").tolist() == [0, 1, 2]


def test_flat_images_are_not_grouped() -> None:
    ramp = np.repeat(np.arange(THUMBNAIL, dtype=np.uint8)[:, None], THUMBNAIL, axis=1)  # slopes have no detail either
    flat = [np.full((THUMBNAIL, THUMBNAIL), gray, np.uint8) for gray in (0, 0, 128, 255)]
    speck = flat[0].copy()
    speck[12, 12] = 1  # all that compression leaves of a blank page
    with np.errstate(all="raise"):
        assert _groups([*flat, ramp, ramp + 9, speck, speck]) == list(range(8))


def test_flat_images_of_equal_bytes_are_grouped() -> None:
    flat = np.zeros((3, THUMBNAIL, THUMBNAIL), np.uint8)
    assert find_duplicate_groups(["a", "b", "a"], flat).tolist() == [0, 1, 0]


@pytest.mark.parametrize("mode", ["near", "exact", "none"])
@pytest.mark.parametrize("count", [0, 1])
def test_groups_of_zero_and_one_file_are_valid(mode: Mode, count: int) -> None:
    groups = find_duplicate_groups(["a"] * count, np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8), mode)
    assert groups.dtype == np.int64
    assert groups.tolist() == [0] * count


@given(order=st.permutations(range(10)))
@settings(max_examples=50)
def test_groups_do_not_depend_on_the_file_order(order: list[int]) -> None:
    thumbnails = np.stack([*(_turned(angle) for angle in range(0, 144, 18)), _picture(_noise(8)), _turned(0)])
    digests = ["same", *_different(8), "same"]

    def partition(indices: Sequence[int]) -> set[frozenset[int]]:
        groups = find_duplicate_groups([digests[i] for i in indices], thumbnails[list(indices)]).tolist()
        return {frozenset(i for i, other in zip(indices, groups, strict=True) if other == group) for group in groups}

    assert partition(order) == partition(range(10)) == {frozenset({*range(8), 9}), frozenset({8})}


@given(angles=st.lists(st.floats(0, 90), min_size=2, max_size=7))
@settings(max_examples=50)
def test_groups_are_the_connected_components_above_the_threshold(
    angles: list[float],
) -> None:
    pictures = [_turned(angle) for angle in angles]
    expected = list(range(len(pictures)))
    for i, one in enumerate(pictures):
        for j, other in enumerate(pictures[:i]):
            if _correlation(one, other) > THRESHOLD:
                low, high = sorted((expected[i], expected[j]))
                expected = [low if group == high else group for group in expected]
    assert _groups(pictures) == expected


def test_pair_at_the_threshold_is_decided_beyond_float32() -> None:
    pictures = [_turned(0), _turned(20)]
    correlation = _correlation(*pictures)
    assert _groups(pictures, threshold=correlation - 1e-12) == [0, 0]
    assert _groups(pictures, threshold=correlation + 1e-12) == [0, 1]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_block_size_does_not_change_the_groups(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    pictures = [_turned(angle) for angle in (0, 90, 10, 45, 100, 180, 55, 190, 20)]
    whole = _groups(pictures)
    monkeypatch.setattr(duplicates, "BLOCK", size)
    monkeypatch.setattr(duplicates, "CHUNK", size)
    assert _groups(pictures) == whole == [0, 1, 0, 3, 1, 5, 3, 5, 0]


def test_many_copies_of_one_photograph_are_grouped_quickly() -> None:
    noisy = np.random.default_rng(0).integers(-3, 4, (1000, THUMBNAIL, THUMBNAIL)) + _turned(0)
    thumbnails = np.clip(noisy, 0, 255).astype(np.uint8)
    assert not find_duplicate_groups([str(number) for number in range(1000)], thumbnails).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digests": ["a"]}, "thumbnails must be"),
        ({"thumbnails": np.zeros((2, 8, 8), np.uint8)}, "thumbnails must be"),
        ({"thumbnails": np.zeros((2, THUMBNAIL, THUMBNAIL), np.float32)}, "thumbnails must be"),
        ({"mode": "fuzzy"}, "mode must be one of near, exact, none"),
        ({"threshold": 92.0}, "threshold must lie"),
        ({"threshold": float("nan")}, "threshold must lie"),
    ],
)
def test_duplicate_grouping_refuses_invalid_input(change: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"digests": ["a", "b"], "thumbnails": np.zeros((2, THUMBNAIL, THUMBNAIL), np.uint8)}
    with pytest.raises(ValueError, match=message):
        find_duplicate_groups(**(valid | change))


def _setting(name: str) -> Path:
    if not os.environ.get(name):
        pytest.skip(f"{name} is not set: this test measures the finder on the real UTKFace")
    return Path(os.environ[name])


def test_utkface_near_copies_are_found() -> None:
    folder, known = _setting("UTKFACE_DIR"), _setting("UTKFACE_NEAR_DUPLICATES")
    names = sorted(path.name for path in folder.glob("*.jpg"))
    index = {name: i for i, name in enumerate(names)}
    with known.open(encoding="utf-8", newline="") as file:
        pairs = [(index[row["a"]], index[row["b"]]) for row in csv.DictReader(file)]

    def read(name: str) -> tuple[str, NDArray[np.uint8]]:
        content = (folder / name).read_bytes()
        return hashlib.sha256(content).hexdigest(), _thumbnail(Image.open(io.BytesIO(content)))

    with ThreadPoolExecutor() as pool:
        digests, thumbnails = zip(*pool.map(read, names), strict=True)
    groups = find_duplicate_groups(digests, np.stack(thumbnails))
    found = sum(groups[a] == groups[b] for a, b in pairs)
    sizes = np.unique(groups, return_counts=True)[1]
    joined = sizes[sizes > 1]
    print(f"{found} of {len(pairs)} known pairs found; {len(joined)} groups of {joined.sum()} files")
    assert found >= 0.95 * len(pairs)
    assert sizes.max() <= 10  # larger ones were joined by mistake: there is none
