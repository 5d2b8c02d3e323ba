"""The cached features of a frozen trunk: what they hold, what they are keyed on, and which view a step reads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.nodes import network_settings

from agegender.data.augmentation.corruptions import corrupt_any
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.loading import feature_cache as features_module
from agegender.data.loading.feature_cache import FeatureViews
from agegender.models.network import MultiTaskNet

Make = Callable[..., AgeGenderDataModule]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(**settings: object) -> AgeGenderDataModule:
        options: dict[str, object] = {"synthetic": {"count": 90, "size": 48}, "image_size": 32, "grayscale": False}
        data = AgeGenderDataModule(**(options | {"cache_dir": str(tmp_path)} | settings))  # type: ignore[arg-type]
        data.prepare_data()
        data.setup()
        return data

    return made


def frozen(seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(seed)
    settings = network_settings({"name": "mae"}, "residual", channels=(8, 16), blocks=(1, 1), trainable="none")
    return MultiTaskNet(32, 3, **settings).eval()


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "features").glob("*.npy")}


def test_first_view_holds_the_features_of_the_unaugmented_face(make: Make) -> None:
    data, net = make(augment={"flip": 1.0}), frozen()
    data.keep_features(net, nullcontext)
    faces = data.split("train")
    batch = faces.__getitems__(range(10))
    with torch.inference_mode():
        wanted, mirrored = net.features(batch["image"]), net.features(batch["image"].flip(3))
    views = data._features["train"]
    torch.testing.assert_close(views.read(batch["row"]), wanted)
    torch.testing.assert_close(views.read(batch["row"], 1), mirrored, rtol=1e-4, atol=1e-4)
    assert len(views.views) == 3 and len(data._features["test"].views) == 1


def test_second_view_of_validation_faces_is_the_corrupted_one(make: Make) -> None:
    data, net = make(), frozen()
    data.keep_features(net, nullcontext)
    batch = data.split("val").__getitems__(range(4))
    with torch.inference_mode():
        wanted = net.features(corrupt_any(batch["image"], batch["row"]))
    torch.testing.assert_close(data._features["val"].read(batch["row"], 1), wanted, rtol=1e-4, atol=1e-4)


def test_features_are_cached_per_trunk_and_augmentation(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(augment={"flip": 0.5}).keep_features(frozen(), nullcontext)
    first = files(tmp_path)
    make(augment={"flip": 0.5}, leave_out="0/3").keep_features(frozen(), nullcontext)  # the cache is of all parts
    assert files(tmp_path) == first and len(first) == 4
    make(augment={"flip": 0.4}).keep_features(frozen(), nullcontext)
    assert len(files(tmp_path)) == len(first) + 2  # two other views of the training faces
    make(augment={"flip": 0.5}, views=1).keep_features(frozen(1), nullcontext)
    assert len(files(tmp_path)) == len(first) + 2 + 3
    monkeypatch.setattr(features_module, "VERSION", 99)
    make(augment={"flip": 0.5}).keep_features(frozen(), nullcontext)
    assert len(files(tmp_path)) == len(first) + 2 + 3 + 4


def test_damaged_features_are_computed_again(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make().keep_features(frozen(), nullcontext)
    path = tmp_path / "features" / min(files(tmp_path))
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with caplog.at_level(logging.WARNING, logger="agegender"):
        make().keep_features(frozen(), nullcontext)
    assert path.read_bytes() == content and f"{path} is damaged" in caplog.text


def test_augmented_views_differ_from_each_other(make: Make) -> None:
    data = make(augment={"rotate": 20.0, "flip": 0.5})
    data.keep_features(frozen(), nullcontext)
    as_it_is, one, other = data.training_features()
    assert not torch.equal(one, other) and not torch.equal(one, as_it_is)


def test_views_are_drawn_uniformly_by_the_generator() -> None:
    rows = np.arange(5, 3005)
    views = FeatureViews(rows, [torch.full((3000, 1), float(view)) for view in range(3)])
    drawn = [views.draw(torch.from_numpy(rows), torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*drawn) and drawn[0].dtype == torch.float32
    assert (torch.bincount(drawn[0][:, 0].long()) / 3000).sub(1 / 3).abs().max() < 0.04
    with pytest.raises(IndexError):
        views.read(torch.tensor([0]))  # no face of this split


@pytest.mark.parametrize("other", [{"split_seed": 1}, {"split": "folds", "fold": 2, "folds": 3}], ids=["seed", "fold"])
def test_features_of_unchanged_faces_are_computed_once_for_all_splits(
    make: Make, tmp_path: Path, other: dict[str, object]
) -> None:
    make().keep_features(frozen(), nullcontext)
    before = files(tmp_path)
    data, net = make(**other), frozen()
    data.keep_features(net, nullcontext)
    assert len(set(files(tmp_path)) - set(before)) == 1  # of the corrupted validation faces
    for name in ("train", "val", "test"):
        batch = data.split(name).__getitems__(range(5))
        with torch.inference_mode():
            wanted = net.features(batch["image"])
        torch.testing.assert_close(data._features[name].read(batch["row"]), wanted, rtol=1e-4, atol=1e-4)


def test_features_of_a_test_are_those_of_unchanged_faces(make: Make, tmp_path: Path) -> None:
    data = make(augment={"flip": 0.5}, split="test")
    data.keep_features(frozen(), nullcontext, fit=False)
    assert len(files(tmp_path)) == 1 and {name: len(each.views) for name, each in data._features.items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
