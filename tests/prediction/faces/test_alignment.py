"""Faces are aligned as in UTKFace's crops, for any position, size and rotation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agegender.data.decode import eval_transform
from agegender.prediction.faces.alignment import (
    TEMPLATE,
    TOLERANCE,
    Points,
    align_crop,
    estimate_similarity,
    is_aligned_crop,
)

SIDE = 96


@pytest.fixture(scope="module")
def face() -> Image.Image:
    """A smooth image without any symmetry."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def move(points: Points, turn: float, scale: float, shift: tuple[float, float]) -> Points:
    angle = math.radians(turn)
    matrix = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return points @ matrix.T + shift


def difference(one: Image.Image, other: Image.Image, margin: int = 0) -> float:
    inside = slice(margin, SIDE - margin)
    pixels = [np.asarray(image, np.float64)[inside, inside] for image in (one, other)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def test_align_crop_maps_the_template_to_itself(face: Image.Image) -> None:
    assert np.allclose(estimate_similarity(TEMPLATE, TEMPLATE), np.eye(2, 3))
    assert is_aligned_crop(TEMPLATE * SIDE, SIDE, SIDE)
    same = align_crop(face, TEMPLATE * SIDE, SIDE)
    assert same.size == face.size
    assert difference(same, face) < 0.5  # of 255


@given(
    turn=st.floats(-180, 180),
    scale=st.floats(0.01, 5000),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_estimate_similarity_recovers_shift_rotation_and_scale(
    turn: float, scale: float, shift: tuple[float, float]
) -> None:
    moved = move(TEMPLATE, turn, scale, shift)
    matrix = estimate_similarity(TEMPLATE, moved)
    assert np.allclose(TEMPLATE @ matrix[:, :2].T + matrix[:, 2], moved, atol=1e-6 * (scale + 1e4))
    assert math.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(scale, rel=1e-6, abs=1e-9)


def test_estimate_similarity_is_the_least_squares_solution() -> None:
    points = TEMPLATE + np.random.default_rng(0).normal(0, 0.03, TEMPLATE.shape)

    def left_over(matrix: Points) -> float:
        return float(((TEMPLATE @ matrix[:, :2].T + matrix[:, 2] - points) ** 2).sum())

    best = estimate_similarity(TEMPLATE, points)
    for step in (1e-3, -1e-3):
        for along, across, right, down in np.eye(4) * step:
            nudge = np.array([[along, -across, right], [across, along, down]])
            assert left_over(best) < left_over(best + nudge)


@pytest.mark.parametrize("turn", [0, 25, 90, 180, -70])
@pytest.mark.parametrize("scale", [1.0, 2.5, 7.0])
def test_align_crop_recovers_a_pasted_face(face: Image.Image, turn: float, scale: float) -> None:
    side = round(scale * SIDE)
    picture = Image.new("RGB", (2 * side, 2 * side), "gray")
    picture.paste(face.resize((side, side), Image.Resampling.BICUBIC), (side // 3, side // 2))
    middle = picture.width / 2, picture.height / 2
    turned = picture.rotate(-turn, Image.Resampling.BICUBIC)  # Pillow turns to the left
    landmarks = TEMPLATE * side + (side // 3, side // 2)
    landmarks = move(landmarks - middle, turn, 1, middle)
    pixels = eval_transform(align_crop(turned, landmarks, SIDE), SIDE, grayscale=False)
    assert difference(Image.fromarray(pixels), face, margin=4) < 3  # of 255; another rotation differs by 50 and more


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    points=st.lists(st.tuples(st.floats(-200, 200), st.floats(-200, 200)), min_size=5, max_size=5, unique=True),
)
def test_align_crop_is_square_for_any_landmarks(size: tuple[int, int], points: list[tuple[float, float]]) -> None:
    picture = Image.new("RGB", size, (200, 100, 50))
    taken = align_crop(picture, np.array(points), 32)
    assert taken.width == taken.height and taken.width % 32 == 0
    assert (np.abs(np.asarray(taken).astype(int) - (200, 100, 50)) <= 1).all()  # the edge is replicated


def test_align_crop_does_not_alias_fine_detail() -> None:
    board = np.indices((1536, 1536)).sum(0) % 2 * 255
    picture = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    pixels = eval_transform(align_crop(picture, move(TEMPLATE * 1000, 10, 1, (300, 100)), 64), 64, grayscale=True)
    assert np.abs(pixels.astype(int) - 127).max() < 12


@pytest.mark.parametrize(
    ("landmarks", "size"),
    [
        (TEMPLATE * SIDE, (SIDE, 2 * SIDE)),  # not square
        (move(TEMPLATE, 0, 1, (1.5 * TOLERANCE, 0)) * SIDE, (SIDE, SIDE)),
        (move(TEMPLATE, 0, 0.5, (0.25, 0.25)) * SIDE, (SIDE, SIDE)),  # a smaller face
        (move(TEMPLATE - 0.5, 90, 1, (0.5, 0.5)) * SIDE, (SIDE, SIDE)),
    ],
)
def test_is_aligned_crop_refuses_other_framings(landmarks: Points, size: tuple[int, int]) -> None:
    assert not is_aligned_crop(landmarks, *size)


@pytest.mark.parametrize(("height", "square"), [(SIDE, True), (92, True), (91, False), (128, False), (72, False)])
def test_is_aligned_crop_requires_a_square_within_five_percent(height: int, square: bool) -> None:
    """An image that is squeezed more must be aligned, as the network's resize would squeeze it further."""
    assert is_aligned_crop(TEMPLATE * (SIDE, height), SIDE, height) is square
    assert is_aligned_crop(TEMPLATE * (height, SIDE), height, SIDE) is square
