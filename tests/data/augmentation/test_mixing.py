"""Mixup and CutMix: the images, the labels' weights, and their random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agegender.data.augmentation.mixing import Mixing, Partners, build_mixing, split_settings
from agegender.errors import AgeGenderError

FACES = 6


def flat_images(size: int = 16) -> torch.Tensor:
    """Images of one gray level each, from which the parts of a mixture can be read."""
    levels = torch.arange(FACES, dtype=torch.uint8) * 51
    return levels.view(-1, 1, 1, 1).repeat(1, 3, size, size)


@given(seed=st.integers(0, 2**63 - 1))
def test_mixup_weights_the_two_images_by_the_labels_weights(seed: int) -> None:
    images = flat_images()
    mixed, (order, own) = Mixing(mixup=0.4)(images, seed)
    assert 0 <= own <= 1 and sorted(order.tolist()) == list(range(FACES))
    levels = images[:, 0, 0, 0] / 255
    torch.testing.assert_close(mixed[:, 0, 3, 5], own * levels + (1 - own) * levels[order])
    assert mixed.shape == images.shape and mixed.dtype == torch.float32


@given(seed=st.integers(0, 2**63 - 1), size=st.integers(8, 20))
def test_cutmix_pastes_one_rectangle_whose_area_is_the_partners_weight(seed: int, size: int) -> None:
    images = flat_images(size)
    mixed, (order, own) = Mixing(cutmix=1.0)(images, seed)
    levels = images[:, 0, 0, 0] / 255
    pasted = torch.zeros(size, size, dtype=torch.bool)
    for face in range(FACES):
        if order[face] == face:
            continue
        pasted = mixed[face, 0] == levels[order[face]]
        assert (mixed[face, :, ~pasted] == levels[face]).all()
        rows, columns = pasted.any(1).nonzero()[:, 0], pasted.any(0).nonzero()[:, 0]
        assert len(rows) * len(columns) == pasted.sum()  # a full rectangle
        assert own == pytest.approx(1 - pasted.float().mean().item())


def test_mixup_weights_follow_the_beta_distribution() -> None:
    own = [Mixing(mixup=0.2)(flat_images(8), seed)[1].own for seed in range(2000)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1))
    assert np.mean(own) == pytest.approx(0.5, abs=0.03)
    assert np.var(own) == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_mixing_with_both_methods_uses_each_for_half_of_the_batches() -> None:
    images = flat_images(8)
    both = Mixing(mixup=1.0, cutmix=1.0)
    cuts = 0
    for seed in range(400):
        mixed, _ = both(images, seed)
        cuts += bool((mixed.unsqueeze(1) == (images / 255).unsqueeze(0)).flatten(2).any(1).all())
    assert 150 < cuts < 250


def test_mixing_repeats_with_its_seed_and_takes_uint8_and_float_images_alike() -> None:
    images, mixing = torch.randint(0, 256, (FACES, 1, 8, 8), dtype=torch.uint8), Mixing(mixup=0.5, cutmix=0.5)
    for seed in range(4):
        first, second = mixing(images, seed), mixing(images.float() / 255, seed)
        assert torch.equal(first[0], second[0]) and torch.equal(first[1].order, second[1].order)
        assert first[1].own == second[1].own != mixing(images, seed + 100)[1].own


def test_partners_dominant_labels_are_those_with_the_larger_weight() -> None:
    labels, order = {"age": torch.tensor([10.0, 20.0, torch.nan])}, torch.tensor([1, 2, 0])
    assert Partners(order, 0.7).dominant(labels)["age"].nan_to_num(-1).tolist() == [10, 20, -1]
    assert Partners(order, 0.3).dominant(labels)["age"].nan_to_num(-1).tolist() == [20, -1, 10]


def test_build_mixing_is_none_unless_a_method_is_on() -> None:
    assert build_mixing(None) is build_mixing({"flip": 0.5}) is build_mixing({"mixup": 0.0, "cutmix": 0}) is None
    made = build_mixing({"flip": 0.5, "cutmix": 1.0})
    assert made is not None and (made.mixup, made.cutmix) == (0.0, 1.0)
    assert split_settings({"flip": 0.5, "mixup": 0.2}) == ({"flip": 0.5}, {"mixup": 0.2})


@pytest.mark.parametrize(("name", "alpha"), [("mixup", -0.1), ("cutmix", float("inf")), ("mixup", float("nan"))])
def test_mixing_refuses_invalid_parameters(name: str, alpha: float) -> None:
    with pytest.raises(AgeGenderError, match=rf"augment.{name}={alpha} must be at least 0"):
        Mixing(**{name: alpha})
