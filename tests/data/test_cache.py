"""The pixel cache holds what decoding gives, whole or not at all."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from agegender import progress
from agegender.data import cache, decode
from agegender.data.cache import CachedPixels, DecodedPixels
from agegender.data.index import FaceIndex, build_index
from agegender.errors import AgeGenderError


@pytest.fixture
def index(faces: Path, tmp_path: Path) -> FaceIndex:
    """Forty faces, to change at will, of which two are the same bytes."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for path in sorted(faces.iterdir(), key=lambda path: path.read_bytes())[:39]:
        shutil.copyfile(path, folder / path.name)
    first = min(folder.iterdir())
    shutil.copyfile(first, folder / "99_0_0_20170116220224660.jpg")
    return build_index(folder, tmp_path / "index", test_fraction=0.4, val_fraction=0.4)


def _open(
    index: FaceIndex, cache_dir: Path, size: int = 32, grayscale: bool = True, used: Iterable[int] | None = None
) -> CachedPixels:
    rows = np.array(list(range(len(index.names)) if used is None else used), dtype=np.int64)
    return CachedPixels(index.folder, index.names, index.digests, rows, size, grayscale, cache_dir)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _all(index: FaceIndex) -> NDArray[np.int64]:
    return np.arange(len(index.names), dtype=np.int64)


@pytest.mark.parametrize("grayscale", [True, False])
@pytest.mark.parametrize("size", [16, 50, 96])
def test_cached_pixels_are_those_of_decoding(index: FaceIndex, tmp_path: Path, size: int, grayscale: bool) -> None:
    images = [decode.read_image(index.folder / name) for name in index.names]
    expected = np.stack([decode.to_pixels(image, size, grayscale) for image in images])
    assert expected.shape == (40, size, size, 1 if grayscale else 3)
    cached = _open(index, tmp_path / "cache", size, grayscale)
    assert (cached.read(_all(index)) == expected).all()
    assert (_open(index, tmp_path / "cache", size, grayscale).read(_all(index)) == expected).all()  # not built: opened
    uncached = DecodedPixels(index.folder, index.names, size, grayscale)
    assert (uncached.read(_all(index)) == expected).all()
    odd_order = np.array([7, 3, 3, 39, 0])
    assert (cached.read(odd_order) == expected[odd_order]).all()
    assert (uncached.read(odd_order) == expected[odd_order]).all()


def test_what_is_read_is_a_copy_that_may_be_written(index: FaceIndex, tmp_path: Path) -> None:
    pixels = _open(index, tmp_path / "cache")
    first = pixels.read(_all(index))
    before = first.copy()
    first[:] = 0
    assert (pixels.read(_all(index)) == before).all()


def test_only_the_used_files_are_decoded(index: FaceIndex, tmp_path: Path) -> None:
    used = [5, 9, 30]
    (index.folder / index.names[0]).write_bytes(b"")  # not used: nobody minds
    pixels = _open(index, tmp_path / "cache", used=used)
    expected = DecodedPixels(index.folder, index.names, 32, True).read(np.array(used))
    assert (pixels.read(np.array(used)) == expected).all()
    assert np.load(pixels.path, mmap_mode="r").shape[0] == 3
    with pytest.raises(IndexError):
        pixels.read(np.array([1]))  # rather than another face's pixels


def test_copies_are_kept_once(index: FaceIndex, tmp_path: Path) -> None:
    assert np.load(_open(index, tmp_path / "cache").path, mmap_mode="r").shape[0] == 39


def test_the_second_opening_decodes_nothing(index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(index, tmp_path / "cache")
    monkeypatch.setattr(decode, "read_image", lambda *_: pytest.fail("decoded again"))
    second = _open(index, tmp_path / "cache")
    assert second.path == first.path and (second.read(_all(index)) == first.read(_all(index))).all()


def test_sizes_colours_and_subsets_have_arrays_of_their_own(index: FaceIndex, tmp_path: Path) -> None:
    paths = {
        _open(index, tmp_path / "cache", size, grayscale, used).path
        for size in (16, 32)
        for grayscale in (True, False)
        for used in (None, range(20))
    }
    assert len(paths) == 8 and all(path.is_file() for path in paths)


def test_renamed_files_share_an_array_and_a_changed_one_makes_another(index: FaceIndex, tmp_path: Path) -> None:
    first = _open(index, tmp_path / "cache")
    options = {"test_fraction": 0.4, "val_fraction": 0.4}
    for number, name in enumerate(index.names):
        (index.folder / name).rename(index.folder / f"{100 - number}_0_0_{number}.jpg")
    renamed = build_index(index.folder, tmp_path / "index", **options)  # type: ignore[arg-type]
    same = _open(renamed, tmp_path / "cache")
    assert same.path == first.path
    uncached = DecodedPixels(renamed.folder, renamed.names, 32, True)
    assert (same.read(_all(renamed)) == uncached.read(_all(renamed))).all()

    with decode.read_image(index.folder / renamed.names[8]) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(index.folder / renamed.names[8])
    changed = build_index(index.folder, tmp_path / "index", **options)  # type: ignore[arg-type]
    other = _open(changed, tmp_path / "cache")
    assert other.path != first.path
    assert (other.read(_all(changed)) == uncached.read(_all(renamed))).all()
    assert (other.read(np.array([8])) != first.read(np.array([8]))).any()


def test_another_decoder_makes_another_array(index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(index, tmp_path / "cache")
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    assert _open(index, tmp_path / "cache").path != first.path


def test_two_simultaneous_builds_end_well(index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = threading.Barrier(2, timeout=20), threading.Barrier(2, timeout=20)
    work = progress.map_threads

    def together(*arguments: Any) -> Iterable[Any]:
        started.wait()  # both have found no array, and opened their own
        yield from work(*arguments)
        ended.wait()  # neither has put its own in place

    monkeypatch.setattr(cache, "map_threads", together)
    arrays: list[CachedPixels] = []
    threads = [threading.Thread(target=lambda: arrays.append(_open(index, tmp_path / "cache"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = DecodedPixels(index.folder, index.names, 32, True).read(_all(index))
    assert len(arrays) == 2 and all((array.read(_all(index)) == expected).all() for array in arrays)
    assert _files(tmp_path / "cache") == [str(arrays[0].path.relative_to(tmp_path / "cache"))]


def _break(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("harm", [_break, Path.unlink])
def test_a_file_that_turned_unreadable_is_an_error_and_leaves_nothing(
    index: FaceIndex, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    victim = index.folder / index.names[20]
    harm(victim)
    with pytest.raises(AgeGenderError, match="was readable when it was indexed and no longer is") as caught:
        _open(index, tmp_path / "cache")
    assert str(victim) in str(caught.value) and "\n" not in str(caught.value)
    assert _files(tmp_path / "cache") == []
    with pytest.raises(AgeGenderError, match="was readable when it was indexed and no longer is"):
        DecodedPixels(index.folder, index.names, 32, True).read(_all(index))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    to_pixels, done = decode.to_pixels, []

    def stopping(*arguments: Any) -> NDArray[np.uint8]:
        done.append(1)
        if len(done) == 10:
            raise stop
        return to_pixels(*arguments)

    monkeypatch.setattr(decode, "to_pixels", stopping)
    with pytest.raises(stop):
        _open(index, tmp_path / "cache")
    assert _files(tmp_path / "cache") == []
    assert _open(index, tmp_path / "cache").read(_all(index)).shape == (40, 32, 32, 1)


def test_a_full_disk_is_an_error_that_says_how_much_is_needed(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    with pytest.raises(AgeGenderError, match=r"\(6 MB: No space left on device\).*data\.cache=none") as caught:
        _open(index, tmp_path / "cache", size=400)
    assert "\n" not in str(caught.value) and _files(tmp_path / "cache") == []


def test_a_cache_folder_that_cannot_be_made_is_an_error_in_one_line(index: FaceIndex, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgeGenderError, match=r"can't write the pixel cache .*data\.cache_dir=") as caught:
        _open(index, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_a_worker_process_is_sent_no_pixels_and_reads_the_same(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.iterdir())[:20]
    digests = [str(i) for i in range(20)]
    cached = CachedPixels(faces, names, digests, np.arange(20), 32, False, tmp_path)
    sent = pickle.dumps(cached)
    assert len(sent) < 2_000  # the pixels are 61,440 bytes
    assert (pickle.loads(sent).read(np.array([3, 7])) == cached.read(np.array([3, 7]))).all()
