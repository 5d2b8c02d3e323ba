"""Training pictures vary as far as the settings say, and no further."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agegender.data.transforms import Augment

EVERYTHING = {
    "flip": 0.5,
    "rotate": 20.0,
    "scale": (0.8, 1.25),
    "shift": 0.1,
    "brightness": 0.2,
    "contrast": 0.3,
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(count: int = 4, size: int = 32, channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=_generator(9), dtype=torch.uint8)


def _spot(row: float, column: float, size: int = 65, width: float = 3.0) -> Tensor:
    """Returns a float picture with one bright spot, given in pixels from the middle."""
    steps = torch.arange(size) - (size - 1) / 2
    square = (steps[:, None] - row) ** 2 + (steps[None, :] - column) ** 2
    return torch.exp(-square / (2 * width**2))[None]


def _centre(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the row and column of each picture's centre of mass, in pixels from the middle."""
    steps = torch.arange(pictures.shape[-1]) - (pictures.shape[-1] - 1) / 2
    mass = pictures.sum((1, 2, 3))
    return (pictures.sum((1, 3)) * steps).sum(1) / mass, (pictures.sum((1, 2)) * steps).sum(1) / mass


@pytest.mark.parametrize("settings", [{}, {"flip": 0.0, "rotate": 0.0, "scale": [1.0, 1.0], "shift": 0.0}])
def test_settings_of_no_change_change_nothing(settings: dict[str, float]) -> None:
    pictures = _pictures(channels=3)
    assert torch.equal(Augment(**settings)(pictures, _generator()), pictures.float() / 255)  # type: ignore[arg-type]
    floats = pictures.float() / 255
    assert torch.equal(Augment(**settings)(floats, _generator()), floats)  # type: ignore[arg-type]


def test_the_callers_pictures_are_left_as_they_were() -> None:
    for pictures in (_pictures(), _pictures().float() / 255):
        before = pictures.clone()
        Augment(**EVERYTHING)(pictures, _generator())  # type: ignore[arg-type]
        assert torch.equal(pictures, before)


@pytest.mark.parametrize("size", [32, 33, 50, 128])
def test_a_sure_flip_mirrors_left_and_right_and_nothing_else(size: int) -> None:
    pictures = _pictures(size=size, channels=3)
    flipped = Augment(flip=1.0)(pictures, _generator())
    torch.testing.assert_close(flipped, pictures.flip(-1).float() / 255, atol=1e-4, rtol=0)


def test_half_of_the_pictures_are_flipped_at_one_half() -> None:
    pictures = _pictures(1).expand(400, 1, 32, 32)
    flipped = Augment(flip=0.5)(pictures, _generator())
    mirrored = (flipped - pictures.flip(-1) / 255).abs().amax((1, 2, 3)) < 1e-4
    same = (flipped - pictures / 255).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all() and 160 < mirrored.sum() < 240


def test_the_same_generator_state_gives_the_same_changes() -> None:
    augment = Augment(**EVERYTHING)  # type: ignore[arg-type]
    first, again, other = (augment(_pictures(), _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_generator_is_drawn_from_so_the_next_batch_differs() -> None:
    augment, generator = Augment(**EVERYTHING), _generator()  # type: ignore[arg-type]
    assert not torch.equal(augment(_pictures(), generator), augment(_pictures(), generator))


def test_the_global_random_state_is_neither_used_nor_moved() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = Augment(**EVERYTHING)(_pictures(), _generator())  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(Augment(**EVERYTHING)(_pictures(), _generator()), first)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["rotate", "scale", "shift", "brightness", "contrast"])
def test_every_picture_of_a_batch_gets_changes_of_its_own(name: str) -> None:
    pictures = _pictures(1).expand(6, 1, 32, 32)
    changed = Augment(**{name: EVERYTHING[name]})(pictures, _generator())  # type: ignore[arg-type]
    for i in range(6):
        assert not torch.allclose(changed[i], pictures[0] / 255, atol=1e-3)
        assert all(not torch.allclose(changed[i], changed[j], atol=1e-4) for j in range(i))


@given(
    flip=st.floats(0, 1),
    rotate=st.floats(0, 180),
    scale=st.tuples(st.floats(0.2, 1), st.floats(1, 5)),
    shift=st.floats(0, 1),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    seed=st.integers(0, 1000),
    channels=st.sampled_from([1, 3]),
    level=st.sampled_from([None, 0, 255]),
)
@settings(max_examples=100, deadline=None)
def test_any_settings_give_floats_from_zero_to_one_of_the_same_shape(
    flip: float,
    rotate: float,
    scale: tuple[float, float],
    shift: float,
    brightness: float,
    contrast: float,
    seed: int,
    channels: int,
    level: int | None,
) -> None:
    pictures = _pictures(channels=channels)
    if level is not None:
        pictures.fill_(level)
    changed = Augment(flip, rotate, scale, shift, brightness, contrast)(pictures, _generator(seed))
    assert changed.dtype == torch.float32 and changed.shape == pictures.shape
    assert changed.isfinite().all() and changed.min() >= 0 and changed.max() <= 1


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_scale_above_one_enlarges_the_face(factor: float) -> None:
    half = 8 if factor == 2 else 16  # half the side of a white square on 64 x 64 pixels
    picture = torch.zeros(1, 1, 64, 64)
    picture[..., 32 - half : 32 + half, 32 - half : 32 + half] = 1
    scaled = Augment(scale=(factor, factor))(picture, _generator())
    assert float(scaled.sum() / picture.sum()) == pytest.approx(factor**2, rel=0.05)
    assert scaled[..., 31:33, 31:33].min() == 1  # it stays in the middle


def test_scales_are_drawn_between_the_two_ends() -> None:
    picture = _spot(0, 0, width=4).expand(300, 1, 65, 65)
    areas = Augment(scale=(0.8, 1.25))(picture, _generator()).sum((1, 2, 3)) / picture[0].sum()
    assert 0.8**2 * 0.99 < areas.min() < 0.75 and 1.4 < areas.max() < 1.25**2 * 1.01
    assert 120 < (areas < 1).sum() < 180  # as often smaller as larger


def test_a_shift_moves_both_ways_along_both_axes_and_no_further_than_asked() -> None:
    picture = _spot(0, 0).expand(300, 1, 65, 65)
    rows, columns = _centre(Augment(shift=0.1)(picture, _generator()))
    for moved in (rows, columns):
        assert -6.6 < moved.min() < -5.5 and 5.5 < moved.max() < 6.6  # a tenth of 65 pixels
        assert abs(moved.mean()) < 0.6
    assert abs(torch.corrcoef(torch.stack((rows, columns)))[0, 1]) < 0.2  # one axis says nothing about the other


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_rotation_turns_about_the_middle_both_ways_and_no_further_than_asked(flip: float) -> None:
    picture = _spot(-20, 0).expand(300, 1, 65, 65)  # above the middle, so that a mirror leaves it there
    rows, columns = _centre(Augment(rotate=30.0, flip=flip)(picture, _generator()))
    angles = torch.rad2deg(torch.atan2(columns, -rows))
    assert -31 < angles.min() < -28 and 28 < angles.max() < 31
    torch.testing.assert_close(torch.hypot(rows, columns), torch.full((300,), 20.0), atol=0.5, rtol=0)


def test_a_turned_face_is_not_sheared() -> None:
    right, top = _spot(0, 15)[None], _spot(-15, 0)[None]
    augment = Augment(rotate=45.0)
    for seed in range(10):
        (row, column), (up, across) = (_centre(augment(picture, _generator(seed))) for picture in (right, top))
        assert abs(float(row * up + column * across)) < 6  # of 15 x 15: still at a right angle
        assert math.hypot(float(row), float(column)) == pytest.approx(15, abs=0.5)


def test_brightness_adds_one_amount_to_all_pixels_of_a_picture() -> None:
    picture = torch.full((200, 1, 8, 8), 0.5)
    picture[..., :4] = 0.4
    change = Augment(brightness=0.2)(picture, _generator()) - picture
    torch.testing.assert_close(change, change[..., :1, :1].expand_as(change))
    assert -0.2 <= change.min() < -0.18 and 0.18 < change.max() <= 0.2001


def test_contrast_spreads_grey_levels_about_mid_grey() -> None:
    picture = torch.tensor([0.3, 0.5, 0.7]).expand(200, 1, 1, 3)
    changed = Augment(contrast=0.25)(picture, _generator())
    torch.testing.assert_close(changed[..., 1], torch.full((200, 1, 1), 0.5))
    gain = (changed[..., 2] - changed[..., 0]) / 0.4
    assert 0.749 < gain.min() < 0.78 and 1.22 < gain.max() < 1.251


def test_the_border_is_continued_instead_of_black() -> None:
    white = torch.ones(50, 1, 32, 32)
    moved = Augment(rotate=45.0, scale=(0.5, 0.8), shift=0.3)(white, _generator())
    torch.testing.assert_close(moved, white)
