"""Published splits: files of names, and CORAL's lists in the package."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from agegender.data.index.published import CORAL, read_coral, read_split_file
from agegender.errors import AgeGenderError


def _protocol(tmp_path: Path, text: str) -> Path:
    (tmp_path / "protocol.csv").write_text(text, encoding="utf-8")
    return tmp_path / "protocol.csv"


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_split_file_is_read(tmp_path: Path, start: str, end: str) -> None:
    lines = ["split,other,file", "test,1,part1/b.jpg", "train,2,a.jpg", "val,3,c.jpg", "test,4,bad.jpg"]
    path = tmp_path / "protocol.csv"
    path.write_bytes((start + end.join(lines)).encode())
    assert read_split_file(path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], {"bad.jpg"}) == [
        "train",
        "test",
        "val",
        "unused",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header line with the columns file, split"),
        ("file,side\na.jpg,train\n", "needs a header line with the columns file, split"),
        ("a.jpg,train\n", "needs a header line with the columns file, split"),
        ("file,split\na.jpg,train\nb.jpg,dev\n", "line 3: split 'dev' is not one of"),
        ("file,split\na.jpg,unused\n", "line 2: split 'unused' is not one of"),
        ("file,split\na.jpg\n", "line 2: split None is not one of"),
        ("split,file\ntrain\n", "not in the folder"),
        ("file,split\na.jpg,train\nx.jpg,test\ny.jpg,test\n", r"names 2 images that are not in the folder, .*'x\.jpg'"),
        ("file,split\na.jpg,train\na.jpg,test\n", r"line 3: 'a\.jpg' is in train and test"),
    ],
)
def test_malformed_split_file_is_an_error_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = _protocol(tmp_path, text)
    with pytest.raises(AgeGenderError, match=message) as caught:
        read_split_file(path, ["a.jpg", "b.jpg"], set())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_split_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.split_file=.*nowhere\.csv does not exist"):
        read_split_file(tmp_path / "nowhere.csv", ["a.jpg"], set())


def test_binary_split_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "protocol.csv").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(1, 10)))
    with pytest.raises(AgeGenderError, match="needs a header line"):
        read_split_file(tmp_path / "protocol.csv", ["a.jpg"], set())


def test_split_file_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "protocol.csv.gz"
    path.write_bytes(gzip.compress(b"file,split\na.jpg,train\nb.jpg,test\n"))
    assert read_split_file(path, ["a.jpg", "b.jpg"], set()) == ["train", "test"]


# CORAL's lists


def _coral() -> dict[str, str]:
    with gzip.open(CORAL, "rt", newline="", encoding="utf-8") as file:
        return {row["file"]: row["split"] for row in csv.DictReader(file)}


def test_coral_lists_are_those_published() -> None:
    sides = _coral()
    assert Counter(sides.values()) == {"train": 13_144, "test": 3_287}
    assert {21 <= int(name.split("_")[0]) <= 60 for name in sides} == {True}
    lines = "".join(f"{name},{side}\n" for name, side in sorted(sides.items()))
    assert (
        hashlib.sha256(lines.encode()).hexdigest() == "95a18fd429d9a4ba28b814a1b1505e53a759e5c29087fe180b2c6250555bdace"
    )
    assert CORAL.stat().st_size < 100_000


@pytest.mark.skipif("PROTOCOLS_DIR" not in os.environ, reason="PROTOCOLS_DIR, the folder of utkface_coral.csv, not set")
def test_coral_lists_are_those_of_the_file() -> None:
    with (Path(os.environ["PROTOCOLS_DIR"]) / "utkface_coral.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"]: row["split"] for row in csv.DictReader(file)} == _coral()


def test_coral_lists_leave_out_further_images() -> None:
    sides = _coral()
    names = sorted({*sides, "20_0_0_20170102233225196.jpg.chip.jpg"})
    rejected = names[-1]
    found = read_coral(names[:-1], {rejected})
    assert dict(zip(names, found, strict=False)) == {name: sides.get(name, "unused") for name in names[:-1]}


def test_coral_lists_on_other_images_are_an_error_in_one_line() -> None:
    message = r"^data\.split=coral, the lists .* names 16431 images that are not in the folder, .*: complete"
    with pytest.raises(AgeGenderError, match=message):
        read_coral(["a.jpg"], set())
