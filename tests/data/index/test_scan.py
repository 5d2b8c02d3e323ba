"""Every file is read once, and again only when it changed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import room_for
from PIL import Image

from agegender.data.index import duplicates, scan
from agegender.data.index.duplicates import THUMBNAIL
from agegender.data.index.scan import ScanResult, group_duplicates, scan_folder
from agegender.errors import AgeGenderError, SystemFaultError


@pytest.fixture
def folder(faces: Path, tmp_path: Path) -> Path:
    """Eight faces, to change at will."""
    (tmp_path / "faces").mkdir()
    for path in sorted(faces.iterdir())[:8]:
        shutil.copyfile(path, tmp_path / "faces" / path.name)
    return tmp_path / "faces"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in no order."""
    seen: list[str] = []
    read = scan._read

    def noted(path: Path) -> scan._Reading:
        seen.append(path.name)
        return read(path)

    monkeypatch.setattr(scan, "_read", noted)
    return seen


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _scan(folder: Path) -> ScanResult:
    return scan_folder(folder, _names(folder), folder.parent / "cache")


def _same(one: ScanResult, other: ScanResult) -> bool:
    return (one.names, one.digests, one.unreadable, one.thumbnails.tobytes()) == (
        other.names,
        other.digests,
        other.unreadable,
        other.thumbnails.tobytes(),
    )


def _kept(folder: Path, pattern: str) -> Path:
    (path,) = (folder.parent / "cache" / "scans").glob(pattern)
    return path


def test_scan_gives_each_files_digest_and_thumbnail(folder: Path) -> None:
    scanned = _scan(folder)
    assert scanned.names == _names(folder) and not scanned.unreadable
    for name, digest, thumbnail in zip(scanned.names, scanned.digests, scanned.thumbnails, strict=True):
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        with Image.open(folder / name) as image:
            gray = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        assert (thumbnail == np.asarray(gray)).all()


def test_scan_reads_an_image_again_whose_decoder_was_missing(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (folder / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "agegender[heic]" in _scan(folder).unreadable["phone.jpg"]
    reads.clear()
    assert "agegender[heic]" in _scan(folder).unreadable["phone.jpg"] and reads == ["phone.jpg"]


def test_second_scan_reads_no_file_and_returns_the_same(folder: Path, reads: list[str]) -> None:
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.jpg").touch()
    first = _scan(folder)
    assert sorted(reads) == _names(folder)
    reads.clear()
    assert _same(_scan(folder), first) and reads == []
    assert first.unreadable == {"broken.jpg": "not a picture that can be read", "empty.jpg": "an empty file"}


def test_scan_reads_only_changed_files_again(folder: Path, reads: list[str]) -> None:
    first = _scan(folder)
    changed, other = first.names[2], first.names[5]
    shutil.copyfile(folder / other, folder / changed)
    reads.clear()
    second = _scan(folder)
    assert reads == [changed]
    assert second.digests[2] == first.digests[5] and (second.thumbnails[2] == first.thumbnails[5]).all()
    reads.clear()
    assert _same(_scan(folder), second) and reads == []  # and the new reading is kept


def test_scan_detects_a_change_that_keeps_the_size(folder: Path, reads: list[str]) -> None:
    first = _scan(folder)
    path = folder / first.names[0]
    size, content = path.stat().st_size, bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    reads.clear()
    assert path.stat().st_size == size and _scan(folder).digests[0] != first.digests[0] and reads == [path.name]


def test_scan_follows_a_file_that_becomes_unreadable_or_readable(folder: Path) -> None:
    name = _names(folder)[3]
    whole = (folder / name).read_bytes()
    assert name in _scan(folder).names
    (folder / name).write_bytes(whole[: len(whole) // 2])
    broken = _scan(folder)
    assert name not in broken.names and broken.unreadable[name].startswith("damaged: image file is truncated")
    (folder / name).write_bytes(whole)
    assert name in _scan(folder).names


def test_scan_reads_only_added_files_and_drops_removed_ones(folder: Path, faces: Path, reads: list[str]) -> None:
    first = _scan(folder)
    added = sorted(faces.iterdir())[20]
    shutil.copyfile(added, folder / added.name)
    (folder / first.names[0]).unlink()
    reads.clear()
    second = _scan(folder)
    assert reads == [added.name]
    assert sorted(second.names) == sorted({*first.names[1:], added.name})


def test_scan_reports_a_file_that_vanishes(folder: Path) -> None:
    scanned = scan_folder(folder, [*_names(folder), "gone.jpg"], folder.parent / "cache")
    assert scanned.unreadable == {"gone.jpg": "can't be read: No such file or directory"} and len(scanned.names) == 8


def test_scan_reports_a_pipe_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    scanned = _scan(folder)
    assert scanned.unreadable == {"pipe.jpg": "can't be read: a pipe or a device, not a file"}
    assert len(scanned.names) == 8


def test_scan_reports_a_file_without_read_permission(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    name = _names(folder)[0]
    (folder / name).chmod(0)
    assert _scan(folder).unreadable == {name: "can't be read: Permission denied"}


def test_scan_cache_separates_folders_with_equal_names(folder: Path, faces: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, path in zip(_names(folder), sorted(faces.iterdir())[50:58], strict=True):
        shutil.copyfile(path, other / name)
    assert not set(_scan(folder).digests) & set(_scan(other).digests)


def test_scan_cache_is_shared_by_two_paths_to_one_folder(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    first = _scan(folder)
    (tmp_path / "link").symlink_to(folder)
    reads.clear()
    assert _same(_scan(tmp_path / "link"), first) and reads == []


def test_scan_of_no_files_is_empty(tmp_path: Path) -> None:
    scanned = scan_folder(tmp_path, [], tmp_path / "cache")
    assert scanned.names == [] and scanned.thumbnails.shape == (0, THUMBNAIL, THUMBNAIL)


def _flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "text": lambda content: b"not what was kept",
    "cut": lambda content: content[: len(content) // 2],
    "header only": lambda content: content[:60],
    "a flipped byte": _flip_a_byte,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_scan_cache_is_rebuilt_when_damaged(
    folder: Path, reads: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = _scan(folder)
    kept = _kept(folder, "*.npz")
    kept.write_bytes(DAMAGE[damage](kept.read_bytes()))
    reads.clear()
    with caplog.at_level(logging.WARNING, logger="agegender"):
        assert _same(_scan(folder), first)
    assert sorted(reads) == first.names and "is damaged" in caplog.text
    reads.clear()
    assert _same(_scan(folder), first) and reads == []


def test_duplicate_groups_are_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _names(folder)[0]
    shutil.copyfile(folder / name, folder / f"0{name}")
    scanned = _scan(folder)
    groups = group_duplicates(scanned, "near", folder.parent / "cache")
    assert groups.tolist() == [0, 0, *range(2, 9)]
    monkeypatch.setattr(duplicates, "find_duplicate_groups", lambda *_: pytest.fail("looked again"))
    assert (group_duplicates(scanned, "near", folder.parent / "cache") == groups).all()


@pytest.mark.parametrize("damage", DAMAGE)
def test_duplicate_group_cache_is_rebuilt_when_damaged(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    scanned = _scan(folder)
    groups = group_duplicates(scanned, "near", folder.parent / "cache")
    kept = _kept(folder, "*.npy")
    kept.write_bytes(DAMAGE[damage](kept.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="agegender"):
        assert (group_duplicates(scanned, "near", folder.parent / "cache") == groups).all()
    assert "is damaged" in caplog.text and (np.load(kept) == groups).all()


def test_scan_cache_that_cannot_be_written_is_an_error_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache_dir = tmp_path / "file" / "cache"
    with pytest.raises(AgeGenderError, match=r"can't write .*data\.cache_dir=") as caught:
        scan_folder(folder, _names(folder), cache_dir)
    assert str(cache_dir) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AgeGenderError, match=r"can't write .*data\.cache_dir="):
        group_duplicates(_scan(folder), "near", cache_dir)


def test_scan_on_a_full_disk_fails_in_one_line_and_leaves_no_partial_file(folder: Path, tmp_path: Path) -> None:
    ends = r"\(1 MB: File too large\); free the disk, or choose another folder with data\.cache_dir=\.\.\.$"
    scanned = _scan(folder)
    with room_for(100):
        with pytest.raises(SystemFaultError, match=f"^no room for what the images hold /.* {ends}"):
            scan_folder(folder, _names(folder), tmp_path / "full")
        with pytest.raises(SystemFaultError, match=f"^no room for the copies that were found /.* {ends}"):
            group_duplicates(scanned, "near", tmp_path / "full")
    assert not list((tmp_path / "full" / "scans").iterdir())
