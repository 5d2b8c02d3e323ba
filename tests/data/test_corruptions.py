"""Harmless changes: each has its stated strength, and is a function of the face's place in the index alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.data.corruptions import CORRUPTIONS, corrupt, corrupt_any


def pictures(count: int = 6, side: int = 32, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, channels, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").mul(0.6).add(0.2)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_corruption_changes_a_picture_within_bounds_and_leaves_what_it_was_given(name: str, channels: int) -> None:
    given_pictures = pictures(channels=channels)
    before = given_pictures.clone()
    changed = corrupt(given_pictures, name, torch.arange(6))
    assert torch.equal(given_pictures, before) and changed.shape == before.shape and changed.dtype == torch.float32
    assert 0 <= float(changed.min()) and float(changed.max()) <= 1
    assert torch.equal(changed, before) == (name == "gray" and channels == 1)


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 40_000), min_size=1, max_size=8, unique=True), data=st.data())
def test_a_face_is_changed_alike_in_any_batch(rows: list[int], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CORRUPTIONS)))
    images, places = pictures(len(rows)), torch.tensor(rows)
    together = corrupt(images, name, places)
    for i in range(len(rows)):
        torch.testing.assert_close(corrupt(images[i : i + 1], name, places[i : i + 1]), together[i : i + 1])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(corrupt_any(images[order], places[order]), corrupt_any(images, places)[order])


@pytest.mark.parametrize("levels", [3, 5, 10])
def test_noise_has_its_deviation_in_gray_levels_in_one_or_all_channels(levels: int) -> None:
    flat = torch.full((4, 3, 128, 128), 0.5)
    for name, shared in ((f"noise_{levels}", True), (f"noise_rgb_{levels}", False)):
        noise = (corrupt(flat, name, torch.arange(4)) - flat) * 255
        assert float(noise.std()) == pytest.approx(levels, rel=0.02)
        assert torch.equal(noise[:, 0], noise[:, 1]) == shared
        assert not torch.equal(noise[0], noise[1])


def test_uint8_pictures_and_mixed_precision_change_nothing() -> None:
    stored = (pictures() * 255).round().to(torch.uint8)
    for name in CORRUPTIONS:
        wanted = corrupt(stored.float() / 255, name, torch.arange(6))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(corrupt(stored, name, torch.arange(6)), wanted), name


def test_turn_and_squeeze_move_a_spot_as_far_as_they_say() -> None:
    spot = torch.zeros(2, 1, 128, 128)
    spot[:, :, 62:66, 102:106] = 1  # 40 pixels right of the middle
    for name, wanted in (("turn", [(39.4, 6.9), (39.4, -6.9)]), ("squeeze", [(34.6, 0.0), (46.2, 0.0)])):
        changed = corrupt(spot, name, torch.arange(2))[:, 0]
        middles = torch.arange(128) + 0.5 - 64
        found = [
            (float((one.sum(0) * middles).sum() / one.sum()), float((one.sum(1) * middles).sum() / one.sum()))
            for one in changed
        ]
        for (x, y), (wanted_x, wanted_y) in zip(found, wanted, strict=True):
            assert abs(x - wanted_x) < 0.5 and abs(abs(y) - abs(wanted_y)) < 0.5, (name, found)
        assert found[0] != found[1]


def test_each_corruption_is_drawn_about_equally_often() -> None:
    drawn = (torch.arange(1700) * 7) % len(CORRUPTIONS)
    assert torch.bincount(drawn).tolist() == [100] * 17
