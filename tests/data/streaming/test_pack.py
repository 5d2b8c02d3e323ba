"""Packing: what is in the shards is what is in the folder, and a folder of shards is whole or isn't there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import room_for

from agegender.data.index.index import build_index
from agegender.data.index.split import SPLITS
from agegender.data.streaming import pack as packing
from agegender.data.streaming.pack import pack
from agegender.data.streaming.packed_index import open_pack
from agegender.errors import AgeGenderError


@pytest.fixture(scope="module")
def packed(odd_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack({"dir": str(odd_faces)}, str(tmp_path_factory.mktemp("packed") / "shards"))


def test_pack_has_the_folders_split_labels_and_quarantine(packed: Path, odd_faces: Path, tmp_path: Path) -> None:
    theirs, ours = build_index(odd_faces, tmp_path / "cache"), open_pack(str(packed), tmp_path)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.complete == theirs.complete and ours.groups == theirs.groups
    assert set(ours.quarantine) == {name.encode(errors="backslashreplace").decode() for name in theirs.quarantine}
    rows = {name: row for row, name in enumerate(theirs.names)}
    for side in SPLITS:
        names = [ours.names[row] for row in ours.rows(side).tolist()]
        places = [rows[name] for name in names]
        assert sorted(places) == theirs.rows(side).tolist() and (side == "train" or places == sorted(places))
        for column in ("age", "gender", "group"):
            assert np.array_equal(getattr(ours, column)[ours.rows(side)], getattr(theirs, column)[places])
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


def test_pack_keeps_a_tables_split_groups_and_missing_labels(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.glob("*.jpg"))[:12]
    sides = ["train"] * 6 + ["val"] * 2 + ["test"] * 3 + [""]
    ages = ["", *(str(20 + place) for place in range(11))]
    groups = ["north", "south"] * 6
    lines = [
        f"{name},{age},f,{group},{side}" for name, age, group, side in zip(names, ages, groups, sides, strict=True)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,age,gender,group,split", *lines]) + "\n")
    data = {"table": str(tmp_path / "labels.csv"), "dir": str(faces)}
    index = open_pack(str(pack(data, str(tmp_path / "shards"))), tmp_path)
    assert [index.place(side)[1] for side in SPLITS] == [6, 2, 3]
    assert index.groups == ("north", "south") and not index.complete and index.split_source == "table labels.csv"


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
