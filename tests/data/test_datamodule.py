"""Data modules: the right faces, in the configured shape, augmented in training only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from agegender.data.augmentation.augment import Augment
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.split import left_out
from agegender.data.loading.dataset import Batch, FaceDataset, step_seed
from agegender.data.loading.device_dataset import DeviceDataset
from agegender.data.loading.pixel_cache import MemmapPixels
from agegender.errors import AgeGenderError

# Two workers are meant, however few cores there are; and forking beside PyTorch's threads is what its loader does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]

STRONG = {"flip": 0.5, "rotate": 10.0, "scale": [0.9, 1.1], "shift": 0.05, "brightness": 0.1, "contrast": 0.1}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all of this file's tests: the faces are read once."""
    return tmp_path_factory.mktemp("cache")


def _module(faces: Path, cache_dir: Path, **options: Any) -> AgeGenderDataModule:
    settings: dict[str, Any] = {"image_size": 16, "batch_size": 16, **options}
    module = AgeGenderDataModule(dir=str(faces), cache_dir=str(cache_dir), **settings)
    module.prepare_data()
    module.setup()
    return module


def _batches(module: AgeGenderDataModule, split: str) -> list[Batch]:
    return list(getattr(module, f"{split}_dataloader")())


def _equal(first: Batch, second: Batch) -> bool:
    pairs = [(first["image"], second["image"]), (first["row"], second["row"])]
    pairs += [(column, second["labels"][name]) for name, column in first["labels"].items()]
    return first["labels"].keys() == second["labels"].keys() and all(torch.equal(*pair) for pair in pairs)


def _rows(batches: list[Batch]) -> list[int]:
    return [row for batch in batches for row in batch["row"].tolist()]


class _Witness(pl.LightningModule):
    """Module that learns nothing and records the batches of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[tuple[int, Batch]]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen["train"].append((self.current_epoch, batch))
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["val"].append((self.current_epoch, batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen["test"].append((self.current_epoch, batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(module: AgeGenderDataModule, tmp_path: Path, epochs: int = 2) -> _Witness:
    witness = _Witness()
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        log_every_n_steps=1,
        val_check_interval=2,  # in the middle of an epoch too, where the trainer changes its state back and forth
    )
    trainer.fit(witness, datamodule=module)
    trainer.test(witness, datamodule=module, verbose=False)
    return witness


def test_loaders_hold_every_face_once(faces: Path, cache_dir: Path) -> None:
    module = _module(faces, cache_dir)
    rows = {split: _rows(_batches(module, split)) for split in ("train", "val", "test")}
    assert sorted(row for part in rows.values() for row in part) == list(range(120))
    for split, part in rows.items():
        assert {module.index.split[row] for row in part} == {split}
    assert len(rows["train"]) > len(rows["test"]) > len(rows["val"]) > 0


def test_loaders_shuffle_training_faces_only(faces: Path, cache_dir: Path) -> None:
    module = _module(faces, cache_dir)
    for split in ("val", "test"):
        rows = _rows(_batches(module, split))
        assert rows == sorted(rows) == _rows(_batches(module, split))
    rows = _rows(_batches(module, "train"))
    assert rows != sorted(rows)


def test_training_seed_changes_the_order_and_not_the_split(faces: Path, cache_dir: Path) -> None:
    one, other = (_module(faces, cache_dir, seed=seed) for seed in (1, 2))
    assert one.index.fingerprint == other.index.fingerprint
    assert one.index.split.tolist() == other.index.split.tolist()
    first, second = (_rows(_batches(module, "train")) for module in (one, other))
    assert first != second and sorted(first) == sorted(second)
    assert first == _rows(_batches(_module(faces, cache_dir, seed=1), "train"))


def test_random_split_validates_on_its_test_faces_with_a_warning(
    faces: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        honest, random = _module(faces, cache_dir), _module(faces, cache_dir, split="random")
    assert random.split("val").rows.tolist() == random.split("test").rows.tolist()
    assert len(random.split("train")) == 96 and len(random.split("test")) == 24  # 80 and 20 % of 120
    assert random.index.fingerprint != honest.index.fingerprint
    assert random.split_settings["split"] == "random"
    assert [record.message for record in caplog.records] == [
        "protocol random: no test face has a copy in training; the test faces choose the epoch too, so the metrics are "
        "optimistic: for comparison only"
    ]


def test_random_split_and_split_file_exclude_each_other() -> None:
    with pytest.raises(AgeGenderError, match=r"data\.split=random and data\.split_file=a\.csv: choose one"):
        AgeGenderDataModule(split="random", split_file="a.csv")


def test_leave_out_partitions_the_training_faces_and_changes_nothing_else(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, path in enumerate(sorted(faces.iterdir())):  # every face, and an exact copy of every second
        for name in [path.name, f"{path.name.split('.')[0]}9.jpg"][: 2 - number % 2]:
            (tmp_path / "faces").mkdir(exist_ok=True)
            (tmp_path / "faces" / name).write_bytes(path.read_bytes())
    whole = _module(tmp_path / "faces", tmp_path / "cache")
    with caplog.at_level("INFO"):
        each = [_module(tmp_path / "faces", tmp_path / "cache", leave_out=f"{part}/3") for part in range(3)]
    rows = set(whole.split("train").rows.tolist())
    parts = [rows - set(module.split("train").rows.tolist()) for module in each]
    assert all(parts) and sum(map(len, parts)) == len(rows) and set().union(*parts) == rows
    copies = [{whole.index.digests[row] for row in part} for part in parts]
    assert not copies[0] & copies[1] and not copies[1] & copies[2] and not copies[0] & copies[2]
    assert len(set().union(*copies)) < len(rows)  # there are copies
    for part, module in enumerate(each):
        assert sorted(_rows(_batches(module, "train"))) == sorted(rows - parts[part])
        for side in ("val", "test"):
            assert module.split(side).rows.tolist() == whole.split(side).rows.tolist()
        assert module.index.fingerprint == whole.index.fingerprint
        assert module.split_settings == whole.split_settings | {"leave_out": f"{part}/3"}
        told = f"data.leave_out={part}/3: {len(parts[part])} of {len(rows)} training images are left out"
        assert told in caplog.messages
    assert len([*(tmp_path / "cache/pixels").glob("*.npy")]) == 1  # decoded once for all


def test_train_limit_keeps_nested_training_faces_and_all_others(faces: Path, cache_dir: Path) -> None:
    whole, more, fewer = (_module(faces, cache_dir, train_limit=count) for count in (None, 30, 10))
    rows = [set(module.split("train").rows.tolist()) for module in (whole, more, fewer)]
    assert [len(each) for each in rows] == [len(rows[0]), 30, 10] and rows[2] < rows[1] < rows[0]
    for side in ("val", "test"):
        assert fewer.split(side).rows.tolist() == whole.split(side).rows.tolist()
    assert fewer.index.fingerprint == whole.index.fingerprint
    assert len(_module(faces, cache_dir, train_limit=10_000).split("train")) == len(rows[0])
    with pytest.raises(AgeGenderError, match=r"^data\.train_limit=0 must be null or at least 1$"):
        _module(faces, cache_dir, train_limit=0)


def test_leave_out_of_all_training_faces_is_refused(faces: Path, cache_dir: Path) -> None:
    (row,) = _module(faces, cache_dir, limit=3).split("train").rows
    index = _module(faces, cache_dir).index
    part = int(left_out(index.digests, index.duplicates, 0, "1/2")[row])
    with pytest.raises(
        AgeGenderError, match=rf"^data\.leave_out={part}/2 leaves no face to train on: give more images$"
    ):
        _module(faces, cache_dir, limit=3, leave_out=f"{part}/2")
    assert len(_module(faces, cache_dir, limit=3, leave_out=f"{1 - part}/2").split("train")) == 1


def test_split_seed_changes_the_split(faces: Path, cache_dir: Path) -> None:
    one, other = (_module(faces, cache_dir, split_seed=seed) for seed in (0, 1))
    assert one.index.fingerprint != other.index.fingerprint
    assert other.split_settings == {
        "duplicates": "near",
        "split": "content",
        "split_seed": 1,
        "test_fraction": 0.2,
        "val_fraction": 0.1,
        "fold": None,
        "folds": None,
        "age_range": [0, 120],
        "split_file": None,
        "table": None,
        "limit": None,
        "leave_out": None,
        "pictures": "photographs",
    }


@pytest.mark.parametrize("grayscale", [True, False])
@pytest.mark.parametrize("size", [8, 40])
def test_batches_have_the_configured_size_and_channels(
    faces: Path, cache_dir: Path, size: int, grayscale: bool
) -> None:
    module = _module(faces, cache_dir, image_size=size, grayscale=grayscale, batch_size=7)
    assert module.channels == (1 if grayscale else 3)
    for split in ("train", "val", "test"):
        batches = _batches(module, split)
        assert {len(batch["row"]) for batch in batches[:-1]} <= {7} and 1 <= len(batches[-1]["row"]) <= 7
        for batch in batches:
            assert batch["image"].shape == (len(batch["row"]), module.channels, size, size)
            assert batch["image"].dtype == torch.uint8


def test_workers_decode_color_batches_equal_to_cached_ones(faces: Path, cache_dir: Path) -> None:
    cached = _module(faces, cache_dir, grayscale=False)
    decoded = _module(faces, cache_dir, grayscale=False, cache="none", num_workers=2)
    for split in ("train", "test"):
        one, other = _batches(cached, split), _batches(decoded, split)
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert _equal(first, second)


def test_cache_none_writes_no_pixels(faces: Path, tmp_path: Path) -> None:
    _module(faces, tmp_path, cache="none")
    assert not (tmp_path / "pixels").exists()
    _module(faces, tmp_path)
    assert len(list((tmp_path / "pixels").glob("*.npy"))) == 1


def test_num_workers_defaults_depend_on_the_cache(faces: Path, cache_dir: Path) -> None:
    assert _module(faces, cache_dir).train_dataloader().num_workers == 0
    assert 1 <= _module(faces, cache_dir, cache="none").train_dataloader().num_workers <= 8
    for cache in ("auto", "none"):
        loader = _module(faces, cache_dir, cache=cache, num_workers=3).val_dataloader()
        assert loader.num_workers == 3 and loader.persistent_workers and not loader.pin_memory


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_batches_are_pinned_for_nvidia_gpus_only(faces: Path, cache_dir: Path, device: str, pinned: bool) -> None:
    module = _module(faces, cache_dir, on_device=False)
    strategy = SimpleNamespace(root_device=torch.device(device))
    module.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, num_devices=1)  # type: ignore[assignment]
    assert module.train_dataloader().pin_memory == module.val_dataloader().pin_memory == pinned


def test_pinned_batch_pins_every_tensor(faces: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(faces, cache_dir)
    loader = module.val_dataloader()
    seen: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        seen.append(id(tensor))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    loader.pin_memory = True
    batch = next(iter(loader))
    tensors = [batch["image"], batch["row"], *batch["labels"].values()]
    assert sorted(seen) == sorted(id(tensor) for tensor in tensors)


def test_workers_decode_gray_batches_equal_to_cached_ones(faces: Path, cache_dir: Path, tmp_path: Path) -> None:
    decoded = _module(faces, tmp_path, cache="none")
    waiting = _module(faces, tmp_path, cache="none", num_workers=0)
    assert 1 <= decoded.train_dataloader().num_workers <= 8 and waiting.train_dataloader().num_workers == 0
    cached = _module(faces, cache_dir)
    for split in ("train", "val", "test"):
        assert isinstance(cached.split(split).pixels, MemmapPixels)
        for first, second in zip(_batches(cached, split), _batches(decoded, split), strict=True):
            assert _equal(first, second)
    assert not (tmp_path / "pixels").exists()


def test_limit_keeps_that_many_faces_each_in_its_split(faces: Path, cache_dir: Path) -> None:
    whole = _module(faces, cache_dir)
    for limit in (3, 40, 119, 500):
        module = _module(faces, cache_dir, limit=limit)
        rows = {split: _rows(_batches(module, split)) for split in ("train", "val", "test")}
        assert sum(map(len, rows.values())) == min(limit, 120) and all(rows.values())
        for split, part in rows.items():
            assert set(part) <= set(_rows(_batches(whole, split)))
            assert len(module.split(split)) == len(part)  # type: ignore[arg-type]
        assert module.index.fingerprint == whole.index.fingerprint


def test_limit_decodes_only_the_used_faces(faces: Path, tmp_path: Path) -> None:
    _module(faces, tmp_path, limit=10)
    (array,) = (tmp_path / "pixels").glob("*.npy")
    assert np.load(array, mmap_mode="r").shape[0] == 10


def test_setup_works_once(faces: Path, cache_dir: Path) -> None:
    module = _module(faces, cache_dir)
    index, train = module.index, module.split("train")
    module.setup("test")
    assert module.index is index and module.split("train") is train


def test_datamodule_reads_nothing_before_setup(tmp_path: Path) -> None:
    module = AgeGenderDataModule(dir=str(tmp_path / "missing"), cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    with pytest.raises(RuntimeError, match="setup"):
        _ = module.index


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 7}, r"data\.image_size=7 must be at least 8"),
        ({"age_range": (60, 18)}, r"data\.age_range=\[60, 18\] must be two ages, the lower one first"),
        ({"augment": {"scale": [0, 1]}}, r"augment\.scale=\[0, 1\] must be two factors above zero"),
        ({"augment": {"flip": 1.5}}, r"augment\.flip=1\.5 must lie between 0 and 1"),
        ({"batch_size": 0}, r"data\.batch_size=0 must be at least 1"),
        ({"num_workers": -1}, r"data\.num_workers=-1 must be null or at least 0"),
        ({"test_fraction": 0.0}, r"data\.test_fraction=0\.0 must lie between"),
        ({"test_fraction": 1.0}, r"data\.test_fraction=1\.0 must lie between"),
        ({"val_fraction": 0.0}, r"data\.val_fraction=0\.0 must lie between"),
        ({"val_fraction": -0.1}, r"data\.val_fraction=-0\.1 must lie between"),
        ({"val_fraction": float("nan")}, r"data\.val_fraction=nan must lie between"),
        ({"dir": None}, r"neither data\.dir nor data\.table is set"),
        ({"synthetic": {"count": 0}, "dir": None}, "Can't draw 0 faces"),
        ({"limit": 2}, r"data\.limit=2 is too small"),
        ({"limit": -1}, r"data\.limit=-1 is too small"),
        ({"split_file": "nowhere.csv"}, r"data\.split_file=nowhere\.csv does not exist"),
        ({"age_range": [110, 120]}, "no UTKFace-named image"),
        (
            {"labels": {"smile": None}},
            "needs the label smile, but there are only age, gender, group in file names: use",
        ),
        (
            {"labels": {"group": ["a", "b"]}},
            "takes the label group as a, b, but it is White, .* in file names: use",
        ),
    ],
)
def test_datamodule_refuses_an_invalid_setting_by_name(
    faces: Path, cache_dir: Path, wrong: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"dir": str(faces), "image_size": 16, **wrong}
    with pytest.raises(AgeGenderError, match=message) as caught:
        AgeGenderDataModule(cache_dir=str(cache_dir), **settings).setup()
    assert "\n" not in str(caught.value)


def test_data_dir_that_is_a_file_is_refused(faces: Path, cache_dir: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.dir=.* is a file"):
        AgeGenderDataModule(dir=str(min(faces.iterdir())), cache_dir=str(cache_dir)).prepare_data()


@pytest.mark.parametrize("options", [{}, {"synthetic": {"count": 20, "size": 32}}])
def test_cache_folder_that_cannot_be_made_is_an_error(faces: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    module = AgeGenderDataModule(dir=str(faces), cache_dir=str(tmp_path / "file" / "cache"), **options)
    with pytest.raises(AgeGenderError, match=r"[Cc]an't write") as caught:
        module.setup()
    assert "\n" not in str(caught.value)


def test_synthetic_faces_are_drawn_once_and_split_like_any_folder(tmp_path: Path) -> None:
    options: dict[str, Any] = {"synthetic": {"count": 60, "seed": 4, "size": 32}, "image_size": 16}
    modules = [AgeGenderDataModule(cache_dir=str(tmp_path), **options) for _ in range(2)]
    for module in modules:
        module.prepare_data()
        module.setup()
    assert len(modules[0].index.names) == 60
    assert modules[0].index.fingerprint == modules[1].index.fingerprint
    assert len(list((tmp_path / "synthetic").iterdir())) == 1


def test_glasses_of_drawn_faces_are_a_label_with_the_classes_of_a_task(tmp_path: Path) -> None:
    options: dict[str, Any] = {"synthetic": {"count": 60, "size": 32, "glasses": True}, "image_size": 16}
    labeled = AgeGenderDataModule(cache_dir=str(tmp_path), labels={"glasses": ["yes", "no"]}, **options)
    plain = AgeGenderDataModule(cache_dir=str(tmp_path), **options)
    for module in (labeled, plain):
        module.setup()
    assert list(labeled.index.labels) == [*plain.index.labels, "glasses"]
    assert 0.3 < labeled.index.labels["glasses"].mean() < 0.7 and labeled.index.classes["glasses"] == ("yes", "no")
    assert labeled.index.fingerprint == plain.index.fingerprint and labeled.index.quarantine == {}
    with pytest.raises(
        AgeGenderError, match="has no column smile, which a task needs; it has path, age, gender, group, g"
    ):
        AgeGenderDataModule(cache_dir=str(tmp_path), labels={"smile": None}, **options).setup()


def test_augmentation_applies_to_training_batches_only(faces: Path, cache_dir: Path, tmp_path: Path) -> None:
    module = _module(faces, cache_dir, augment=STRONG)
    witness = _fit(module, tmp_path)
    assert all(witness.seen.values())
    for stage in ("val", "test"):
        for _, batch in witness.seen[stage]:
            assert torch.equal(batch["image"], _as_stored(module, batch))
    for _, batch in witness.seen["train"]:
        stored = _as_stored(module, batch).float() / 255
        assert batch["image"].dtype == torch.float32 and batch["image"].shape == stored.shape
        changed = (batch["image"] - stored).abs().amax((1, 2, 3)) > 0.01
        assert changed.all()


def test_augmentation_depends_on_seed_epoch_and_step_only(faces: Path, cache_dir: Path, tmp_path: Path) -> None:
    module = _module(faces, cache_dir, augment=STRONG, seed=7)
    seen = _fit(module, tmp_path).seen["train"]
    steps = len(module.train_dataloader())
    assert [epoch for epoch, _ in seen] == [0] * steps + [1] * steps
    for count, (epoch, batch) in enumerate(seen):
        generator = torch.Generator().manual_seed(step_seed(7, epoch, count % steps, "augment"))
        expected = Augment(**STRONG)(_as_stored(module, batch), generator)  # type: ignore[arg-type]
        assert torch.equal(batch["image"], expected)


@pytest.mark.parametrize("augment", [None, {}])
def test_no_augmentation_leaves_training_images_as_stored_and_reorders_each_epoch(
    faces: Path, cache_dir: Path, tmp_path: Path, augment: dict[str, Any] | None
) -> None:
    module = _module(faces, cache_dir, augment=augment)
    seen = _fit(module, tmp_path).seen["train"]
    for _, batch in seen:
        assert torch.equal(batch["image"], _as_stored(module, batch))
    first, second = (_rows([batch for epoch, batch in seen if epoch == number]) for number in (0, 1))
    assert first != second and sorted(first) == sorted(second) == module.split("train").rows.tolist()


def _as_stored(module: AgeGenderDataModule, batch: Batch) -> Tensor:
    pixels = module.split("train").pixels.read(batch["row"].numpy())
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_on_device_batches_equal_those_of_the_loader(faces: Path, cache_dir: Path) -> None:
    loaded, placed = (_module(faces, cache_dir, on_device=choice) for choice in (False, True))
    assert isinstance(placed.train_dataloader().dataset, DeviceDataset)
    assert isinstance(loaded.train_dataloader().dataset, FaceDataset)
    for split in ("train", "val", "test"):
        for first, second in zip(_batches(loaded, split), _batches(placed, split), strict=True):
            assert _equal(first, second)


def test_on_device_is_off_by_default_on_a_cpu(faces: Path, cache_dir: Path) -> None:
    assert isinstance(_module(faces, cache_dir).train_dataloader().dataset, FaceDataset)


@pytest.mark.parametrize("clash", [{"cache": "none"}, {"num_workers": 2}])
def test_on_device_with_workers_or_without_cache_is_refused(
    clash: dict[str, Any], faces: Path, cache_dir: Path
) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.on_device=true .* set data\.cache=auto and"):
        _module(faces, cache_dir, on_device=True, **clash)
