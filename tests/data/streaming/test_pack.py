"""Packing: what is in the shards is what is in the folder, and a folder of shards is whole or isn't there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import room_for
from helpers.made_tables import write_table
from omegaconf import OmegaConf

from agegender.config.allowlist import kwargs_of
from agegender.config.compose import compose_command
from agegender.data.index.index import build_index
from agegender.data.index.protocol import Leak
from agegender.data.index.split import SPLITS
from agegender.data.index.utkface import GROUPS
from agegender.data.streaming import pack as packing
from agegender.data.streaming.datamodule import StreamingDataModule
from agegender.data.streaming.pack import pack
from agegender.data.streaming.packed_index import open_pack
from agegender.errors import AgeGenderError
from agegender.tasks.labels import labels_of


@pytest.fixture(scope="module")
def packed(odd_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack({"dir": str(odd_faces)}, str(tmp_path_factory.mktemp("packed") / "shards"))


def test_pack_has_the_folders_split_labels_and_quarantine(packed: Path, odd_faces: Path, tmp_path: Path) -> None:
    theirs, ours = build_index(odd_faces, tmp_path / "cache"), open_pack(str(packed), tmp_path)
    assert ours.fingerprint == theirs.fingerprint
    assert list(ours.labels) == list(theirs.labels) and ours.classes == theirs.classes
    assert set(ours.quarantine) == {name.encode(errors="backslashreplace").decode() for name in theirs.quarantine}
    rows = {name: row for row, name in enumerate(theirs.names)}
    for side in SPLITS:
        names = [ours.names[row] for row in ours.rows(side).tolist()]
        places = [rows[name] for name in names]
        assert sorted(places) == theirs.rows(side).tolist() and (side == "train" or places == sorted(places))
        for name, column in theirs.labels.items():
            assert np.array_equal(ours.labels[name][ours.rows(side)], column[places])
    theirs.write_csv(tmp_path / "theirs.csv")
    ours.write_csv(tmp_path / "ours.csv")
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
    theirs.write_quarantine(tmp_path / "theirs.csv")
    assert (packed / "quarantine.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_pack_shuffles_the_training_faces(packed: Path, tmp_path: Path) -> None:
    """A folder lists UTKFace by age: shards in that order would make batches of one age."""
    index = open_pack(str(packed), tmp_path)
    names = [index.names[row] for row in index.rows("train").tolist()]
    with (packed / "index.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        digests = {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    assert names == sorted(names, key=lambda name: (digests[name], name)) and names != sorted(names)


SMILE = {"smile": {"label": "smile", "classes": ["no", "yes"]}}


@pytest.fixture(scope="module")
def packed_table(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces of a table with holes, groups and a column of its own, packed for a task."""
    folder = tmp_path_factory.mktemp("packed table")
    names = sorted(path.name for path in faces.glob("*.jpg"))[:12]
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 3 + [""]
    rows = [
        {"path": name, "age": ["", 20 + row][row > 0], "gender": "f", "group": ["north", "south"][row % 2]}
        | {"smile": ["no", "", "YES"][row % 3], "split": split}
        for row, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    data = {"table": str(write_table(folder / "labels.csv", rows)), "dir": str(faces)}
    return pack(data, str(folder / "shards"), tasks=SMILE)


def test_pack_keeps_a_tables_split_classes_and_missing_labels(packed_table: Path, tmp_path: Path) -> None:
    index = open_pack(str(packed_table), tmp_path)
    assert [index.place(split)[1] for split in SPLITS] == [6, 2, 3] and index.split_source == "table labels.csv"
    assert index.classes == {"gender": ("male", "female"), "group": ("north", "south"), "smile": ("no", "yes")}
    rows = np.argsort([index.names[row] for row in range(11)])
    assert list(index.labels) == ["age", "gender", "group", "smile"]
    assert np.array_equal(index.labels["age"][rows], [np.nan, *range(21, 31)], equal_nan=True)
    assert np.array_equal(index.labels["smile"][rows], ([0, np.nan, 1] * 4)[:11], equal_nan=True)


@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_streamed_labels_of_a_table_are_those_of_its_index(packed_table: Path) -> None:
    module = StreamingDataModule(str(packed_table), image_size=16, batch_size=4, labels=labels_of(SMILE))
    module.setup()
    batches = [*module.train_dataloader(), *module.val_dataloader()]
    assert sum(len(batch["row"]) for batch in batches) == 8
    for batch in batches:
        assert list(batch["labels"]) == list(module.index.labels)
        for name, column in module.index.labels.items():
            assert np.array_equal(batch["labels"][name].numpy(), column[batch["row"].numpy()], equal_nan=True)
    assert sorted(module.split("train").known("smile").tolist()) == [0, 0, 1, 1]
    assert module.split("train").known("mood").tolist() == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"mood": None},
            r"a task needs the label mood, but there are only age, gender, group, smile in .*: pack",
        ),
        ({"smile": ["yes", "no"]}, "a task takes the label smile as yes, no, but it is no, yes in .*: pack the faces"),
        ({"smile": None}, "a task takes the label smile as a number, but it is no, yes in .*: pack the faces"),
        ({"group": list(GROUPS)}, "a task takes the label group as White, .*, but it is north, south in .*"),
    ],
)
def test_streaming_refuses_labels_that_were_not_packed(
    packed_table: Path, labels: dict[str, list[str] | None], message: str
) -> None:
    with pytest.raises(AgeGenderError, match=message) as caught:
        StreamingDataModule(str(packed_table), labels=labels).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("left", ["a file of mine", ".hidden"])
def test_pack_refuses_a_folder_that_is_not_empty(faces: Path, tmp_path: Path, left: str) -> None:
    out = tmp_path / "shards"
    out.mkdir()
    (out / left).write_text("mine")
    with pytest.raises(AgeGenderError, match="not empty"):
        pack({"dir": str(faces)}, str(out))
    assert [path.name for path in out.iterdir()] == [left] and (out / left).read_text() == "mine"


def test_interrupted_pack_leaves_no_partial_folder_and_can_be_repeated(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shards"
    with monkeypatch.context() as patch:
        read: Callable[[Path], bytes] = packing._read
        calls: list[Path] = []

        def stop(path: Path) -> bytes:
            calls.append(path)
            if len(calls) > 40:
                raise KeyboardInterrupt
            return read(path)

        patch.setattr(packing, "_read", stop)
        with pytest.raises(KeyboardInterrupt):
            pack({"dir": str(faces)}, str(out))
    assert not out.exists()
    half = tmp_path / ".shards.packing"  # as kill -9 would leave it
    (half / "train").mkdir(parents=True)
    (half / "train" / "chunk-0-0.bin").write_bytes(b"half")
    pack({"dir": str(faces)}, str(out))
    assert open_pack(str(out), tmp_path).place("train")[1] > 60
    assert not half.exists()


def test_pack_on_a_full_disk_fails_in_one_line_and_leaves_nothing(faces: Path, tmp_path: Path) -> None:
    build_index(faces, tmp_path / "cache")
    data = {"dir": str(faces), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(AgeGenderError, match="can't write out="), room_for(50_000):
        pack(data, str(tmp_path / "shards"))
    assert not {"shards", ".shards.packing"} & set(os.listdir(tmp_path))


def test_pack_refuses_an_image_changed_since_indexing(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_read", lambda path: path.read_bytes() + b"more")
    with pytest.raises(AgeGenderError, match="changed while it was packed"):
        pack({"dir": str(faces)}, str(tmp_path / "shards"))
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("rule", ["random", "test"])
def test_pack_refuses_random_and_test_splits(faces: Path, tmp_path: Path, rule: str) -> None:
    with pytest.raises(AgeGenderError, match=rf"data\.split={rule}"):
        pack({"dir": str(faces), "split": rule}, str(tmp_path / "shards"))


def test_pack_refuses_train_limit(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"^data\.train_limit is for a training from the folder itself"):
        pack({"dir": str(faces), "train_limit": 9}, str(tmp_path / "shards"))


def test_pack_refuses_leave_out(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"^data\.leave_out is for a training from the folder itself"):
        pack({"dir": str(faces), "leave_out": "0/5"}, str(tmp_path / "shards"))
    assert not (tmp_path / "shards").exists()


def test_pack_without_litdata_is_an_error_with_the_install_command(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(AgeGenderError, match=r"agegender\[stream\]"):
        pack({"dir": str(faces)}, str(tmp_path / "shards"))


def test_folder_without_a_pack_is_refused_in_one_line(faces: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"has no packed faces .*agegender pack"):
        open_pack(str(faces), tmp_path)
    with pytest.raises(AgeGenderError, match="has no packed faces"):
        open_pack(str(tmp_path / "nowhere"), tmp_path)
    shutil.copytree(packed, tmp_path / "torn")
    (tmp_path / "torn" / "labels.npy").write_bytes((packed / "labels.npy").read_bytes()[:-3])
    with pytest.raises(AgeGenderError, match="damaged"):
        open_pack(str(tmp_path / "torn"), tmp_path)
    manifest = json.loads((packed / "pack.json").read_text())
    (tmp_path / "torn" / "pack.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(AgeGenderError, match="has pack version 99"):
        open_pack(str(tmp_path / "torn"), tmp_path)


def test_pack_of_a_fold_keeps_protocol_and_leak(faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = compose_command("pack", ["protocol=folds", "data.fold=1", f"data.dir={faces}"]).data
    plain: Any = OmegaConf.to_container(settings)
    packed = pack(kwargs_of(plain), str(tmp_path / "shards"))
    data = StreamingDataModule(dir=str(packed), cache_dir=str(tmp_path / "cache"))
    with caplog.at_level("INFO"):
        data.setup()
    assert caplog.messages[-1] == ("protocol folds: no test face has a copy in training; fold 1 of 5, counted from 0")
    whole = build_index(faces, tmp_path / "cache", split="folds", fold=1, folds=5)
    assert data.index.fingerprint == whole.fingerprint and data.index.leak == whole.leak
    assert whole.leak == Leak(len(data.split("test")), 120 - len(data.split("test")), 0)
