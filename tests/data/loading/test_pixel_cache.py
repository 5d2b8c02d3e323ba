"""The pixel cache holds what decoding gives, whole or not at all."""

from __future__ import annotations

import errno
import io
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, room_for
from numpy.typing import NDArray
from PIL import Image

from agegender.data import decode
from agegender.data.index.index import FaceIndex, build_index
from agegender.data.loading.pixel_cache import DecodeOnRead, MemmapPixels, open_pixel_cache
from agegender.errors import AgeGenderError, SystemFaultError
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.system import parallel
from agegender.system.checksums import is_intact
from agegender.system.files import atomic_write


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
) -> MemmapPixels:
    rows = np.array(list(range(len(index.names)) if used is None else used), dtype=np.int64)
    pixels = open_pixel_cache(index.folder, index.names, index.digests, rows, size, grayscale, cache_dir)
    assert isinstance(pixels, MemmapPixels)
    return pixels


def _files(folder: Path) -> list[Path]:
    """What was written below a folder, apart from the locks, which are empty."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def _all(index: FaceIndex) -> NDArray[np.int64]:
    return np.arange(len(index.names), dtype=np.int64)


@pytest.mark.parametrize("grayscale", [True, False])
@pytest.mark.parametrize("size", [16, 50, 96])
def test_cached_pixels_equal_decoded_ones(index: FaceIndex, tmp_path: Path, size: int, grayscale: bool) -> None:
    images = [decode.read_image(index.folder / name) for name in index.names]
    expected = np.stack([decode.eval_transform(image, size, grayscale) for image in images])
    assert expected.shape == (40, size, size, 1 if grayscale else 3)
    cached = _open(index, tmp_path / "cache", size, grayscale)
    assert (cached.read(_all(index)) == expected).all()
    assert (_open(index, tmp_path / "cache", size, grayscale).read(_all(index)) == expected).all()  # not built: opened
    uncached = DecodeOnRead(index.folder, index.names, size, grayscale)
    assert (uncached.read(_all(index)) == expected).all()
    odd_order = np.array([7, 3, 3, 39, 0])
    assert (cached.read(odd_order) == expected[odd_order]).all()
    assert (uncached.read(odd_order) == expected[odd_order]).all()


def test_cached_pixels_are_returned_as_a_writable_copy(index: FaceIndex, tmp_path: Path) -> None:
    pixels = _open(index, tmp_path / "cache")
    first = pixels.read(_all(index))
    before = first.copy()
    first[:] = 0
    assert (pixels.read(_all(index)) == before).all()


def test_cache_decodes_only_the_used_files(index: FaceIndex, tmp_path: Path) -> None:
    used = [5, 9, 30]
    (index.folder / index.names[0]).write_bytes(b"")  # not used: nobody minds
    pixels = _open(index, tmp_path / "cache", used=used)
    expected = DecodeOnRead(index.folder, index.names, 32, True).read(np.array(used))
    assert (pixels.read(np.array(used)) == expected).all()
    assert np.load(pixels.path, mmap_mode="r").shape[0] == 3
    with pytest.raises(IndexError):
        pixels.read(np.array([1]))  # rather than another face's pixels


def test_cache_stores_equal_files_once(index: FaceIndex, tmp_path: Path) -> None:
    assert np.load(_open(index, tmp_path / "cache").path, mmap_mode="r").shape[0] == 39


def test_cache_decodes_nothing_when_opened_again(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _open(index, tmp_path / "cache")
    monkeypatch.setattr(decode, "read_image", lambda *_: pytest.fail("decoded again"))
    second = _open(index, tmp_path / "cache")
    assert second.path == first.path and (second.read(_all(index)) == first.read(_all(index))).all()


def test_cache_keeps_an_array_per_size_color_and_subset(index: FaceIndex, tmp_path: Path) -> None:
    paths = {
        _open(index, tmp_path / "cache", size, grayscale, used).path
        for size in (16, 32)
        for grayscale in (True, False)
        for used in (None, range(20))
    }
    assert len(paths) == 8 and all(path.is_file() for path in paths)


def test_cache_key_follows_contents_not_names(index: FaceIndex, tmp_path: Path) -> None:
    first = _open(index, tmp_path / "cache")
    options = {"test_fraction": 0.4, "val_fraction": 0.4}
    for number, name in enumerate(index.names):
        (index.folder / name).rename(index.folder / f"{100 - number}_0_0_{number}.jpg")
    renamed = build_index(index.folder, tmp_path / "index", **options)  # type: ignore[arg-type]
    same = _open(renamed, tmp_path / "cache")
    assert same.path == first.path
    uncached = DecodeOnRead(renamed.folder, renamed.names, 32, True)
    assert (same.read(_all(renamed)) == uncached.read(_all(renamed))).all()

    with decode.read_image(index.folder / renamed.names[8]) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(index.folder / renamed.names[8])
    changed = build_index(index.folder, tmp_path / "index", **options)  # type: ignore[arg-type]
    other = _open(changed, tmp_path / "cache")
    assert other.path != first.path
    assert (other.read(_all(changed)) == uncached.read(_all(renamed))).all()
    assert (other.read(np.array([8])) != first.read(np.array([8]))).any()


def test_cache_key_changes_with_the_decoder(index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(index, tmp_path / "cache")
    monkeypatch.setattr(decode, "VERSION", decode.VERSION + 1)
    assert _open(index, tmp_path / "cache").path != first.path


def _with_another_face(index: FaceIndex, faces: Path) -> None:
    other = next(path for path in sorted(faces.iterdir()) if not (index.folder / path.name).exists())
    shutil.copyfile(other, index.folder / other.name)


def _with_a_face_less(index: FaceIndex, _: Path) -> None:
    (index.folder / index.names[7]).unlink()


@pytest.mark.parametrize("change", [_with_another_face, _with_a_face_less])
def test_cache_key_changes_with_added_and_removed_files(
    index: FaceIndex, faces: Path, tmp_path: Path, change: Callable[[FaceIndex, Path], None]
) -> None:
    first = _open(index, tmp_path / "cache")
    change(index, faces)
    changed = build_index(index.folder, tmp_path / "index", test_fraction=0.4, val_fraction=0.4)
    other = _open(changed, tmp_path / "cache")
    assert other.path != first.path and abs(len(changed.names) - len(index.names)) == 1
    assert (
        other.read(_all(changed)) == DecodeOnRead(changed.folder, changed.names, 32, True).read(_all(changed))
    ).all()


# Builds the cache of a folder as a run of its own, notes each decoding, and stops on the way until `go` is there.
BUILD = """
import hashlib, logging, sys, time
from pathlib import Path
import numpy as np
from agegender.system import parallel
from agegender.data import decode
from agegender.data.loading.pixel_cache import open_pixel_cache

folder, cache_dir, notes = map(Path, sys.argv[1:])
parallel.available_cores = lambda: 2
logging.basicConfig(level=logging.INFO, format="%(message)s")
read_image, done = decode.read_image, []

def noted(*arguments):
    with (notes / "decoded").open("a") as file:
        file.write(".")
    done.append(1)
    while len(done) >= 5 and not (notes / "go").exists():
        time.sleep(0.01)
    return read_image(*arguments)

decode.read_image = noted
names = sorted(path.name for path in folder.iterdir())
digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
rows = np.arange(len(names))
np.save(sys.stdout.buffer, open_pixel_cache(folder, names, digests, rows, 32, True, cache_dir).read(rows))
"""


def _start_build(index: FaceIndex, tmp_path: Path) -> subprocess.Popen[bytes]:
    arguments = [str(index.folder), str(tmp_path / "cache"), str(tmp_path)]
    command = [sys.executable, "-c", BUILD, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


def _wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def _decoded(tmp_path: Path) -> int:
    notes = tmp_path / "decoded"
    return notes.stat().st_size if notes.exists() else 0


def test_concurrent_builds_decode_once(index: FaceIndex, tmp_path: Path) -> None:
    builds = [_start_build(index, tmp_path) for _ in range(2)]
    said = [build.stderr.readline().decode() for build in builds if build.stderr]  # the one builds, the other waits
    (tmp_path / "go").touch()
    expected = DecodeOnRead(index.folder, index.names, 32, True).read(_all(index))
    for build in builds:
        out, err = build.communicate(timeout=60)
        assert build.returncode == 0 and err == b""
        assert (np.load(io.BytesIO(out)) == expected).all()
    assert sorted(line.split(":")[0].split(" into ")[0] for line in said) == [
        "another run is decoding the same images",
        "decoding 39 images once",
    ]
    assert _decoded(tmp_path) == 39


def test_killed_build_is_cleaned_up_by_the_next(index: FaceIndex, tmp_path: Path) -> None:
    build = _start_build(index, tmp_path)
    _wait_for(lambda: _decoded(tmp_path) >= 5)
    build.kill()
    build.communicate(timeout=60)
    (partial,) = _files(tmp_path / "cache")
    assert build.returncode == -signal.SIGKILL and partial.suffix == ".partial"
    unrelated = partial.with_name(f".another{partial.name}")  # which another run may be writing
    shutil.copyfile(partial, unrelated)
    pixels = _open(index, tmp_path / "cache")
    assert (pixels.read(_all(index)) == DecodeOnRead(index.folder, index.names, 32, True).read(_all(index))).all()
    assert _files(tmp_path / "cache") == sorted([unrelated, pixels.path])


def test_multiprocess_build_equals_decoding(index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda: 3)
    monkeypatch.setattr(parallel, "MIN_ITEMS_PER_PROCESS", 5)
    built = _open(index, tmp_path / "cache", 50, grayscale=False).read(_all(index))
    assert (built == DecodeOnRead(index.folder, index.names, 50, False).read(_all(index))).all()
    (index.folder / index.names[20]).write_bytes(b"")
    with pytest.raises(AgeGenderError, match="was readable when it was indexed and no longer is"):
        _open(index, tmp_path / "cache", 51)
    assert len(_files(tmp_path / "cache")) == 1


def _break(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("harm", [_break, Path.unlink])
def test_build_fails_on_a_file_become_unreadable_and_leaves_nothing(
    index: FaceIndex, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    victim = index.folder / index.names[20]
    harm(victim)
    with pytest.raises(AgeGenderError, match="was readable when it was indexed and no longer is") as caught:
        _open(index, tmp_path / "cache")
    assert str(victim) in str(caught.value) and "\n" not in str(caught.value)
    assert _files(tmp_path / "cache") == []
    with pytest.raises(AgeGenderError, match="was readable when it was indexed and no longer is"):
        DecodeOnRead(index.folder, index.names, 32, True).read(_all(index))


@pytest.mark.parametrize("damage", ["one bit", "cut short", "emptied", "zeroed"])
def test_damaged_cache_is_built_again_with_one_line(
    index: FaceIndex, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = _open(index, tmp_path / "cache").path
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
    path.write_bytes(
        {"one bit": flipped, "cut short": content[:middle], "emptied": b"", "zeroed": bytes(len(content))}[damage]
    )
    with caplog.at_level(logging.WARNING, logger="agegender"):
        again = _open(index, tmp_path / "cache").read(_all(index))
    assert (again == DecodeOnRead(index.folder, index.names, 32, True).read(_all(index))).all()
    assert path.read_bytes() == content
    lines = {record.getMessage() for record in caplog.records}
    assert lines == {f"{path} is damaged (its checksum doesn't match): the images are decoded again"}


@pytest.mark.benchmark
def test_check_of_the_cache_takes_at_most_3_percent_of_reading_it_as_batches_for_a_step(tmp_path: Path) -> None:
    """Against the smallest bundled network in evaluation, of which training is several times slower."""
    network = TorchBackend("small", "cpu").network
    size, channels, faces = network.image_size, network.in_channels, 2048
    with atomic_write(tmp_path / "pixels.npy", checksum=True) as file:
        np.save(file, np.random.default_rng(0).integers(0, 256, (faces, size, size, channels), np.uint8))
    batch = torch.zeros(32, channels, size, size, dtype=torch.uint8)

    def checked() -> None:
        assert is_intact(tmp_path / "pixels.npy", "")

    def evaluated() -> None:
        with torch.inference_mode():
            network(batch)

    check, step = (min(timeit.repeat(work, number=1, repeat=5)) for work in (checked, evaluated))
    assert check / faces < 0.03 * step / 32


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_interrupted_build_leaves_nothing_and_can_be_repeated(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    read_image, done = decode.read_image, []

    def stopping(*arguments: Any) -> Image.Image:
        done.append(1)
        if len(done) == 10:
            raise stop
        return read_image(*arguments)

    monkeypatch.setattr(decode, "read_image", stopping)
    with pytest.raises(stop):
        _open(index, tmp_path / "cache")
    assert _files(tmp_path / "cache") == []
    assert _open(index, tmp_path / "cache").read(_all(index)).shape == (40, 32, 32, 1)


@pytest.mark.parametrize("reserves", [True, False])
def test_full_disk_is_an_error_in_one_line_with_the_needed_size(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserves: bool
) -> None:
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    rows = _all(index)
    said = (
        r"^no room for the pixel cache /.*\.npy \(6 MB: File too large\); free the disk, or choose another folder with "
        r"data\.cache_dir=\.\.\., or use data\.cache=none, which decodes every image anew at every read$"
    )
    with room_for(5_000_000), pytest.raises(SystemFaultError, match=said):
        open_pixel_cache(index.folder, index.names, index.digests, rows, 400, True, tmp_path / "cache")
    assert _files(tmp_path / "cache") == []
    assert _open(index, tmp_path / "cache", size=400).read(rows).shape == (len(rows), 400, 400, 1)  # it fits by now


def test_full_disk_is_detected_before_decoding(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "read_image", lambda *_: pytest.fail("decoded in vain"))
    with room_for(20_000), pytest.raises(SystemFaultError, match="no room for the pixel cache"):
        open_pixel_cache(index.folder, index.names, index.digests, _all(index), 32, True, tmp_path / "cache")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_cache_is_written_where_space_cannot_be_reserved(
    index: FaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refused)
    expected = DecodeOnRead(index.folder, index.names, 32, True).read(_all(index))
    assert (_open(index, tmp_path / "cache").read(_all(index)) == expected).all()


def test_cache_folder_that_cannot_be_made_is_an_error_in_one_line(index: FaceIndex, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgeGenderError, match=r"can't write the pixel cache .*data\.cache_dir=") as caught:
        _open(index, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_pickled_cache_holds_no_pixels_and_reads_the_same(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.iterdir())[:20]
    digests = [str(i) for i in range(20)]
    cached = open_pixel_cache(faces, names, digests, np.arange(20), 32, False, tmp_path)
    sent = pickle.dumps(cached)
    assert len(sent) < 2_000  # the pixels are 61,440 bytes
    assert (pickle.loads(sent).read(np.array([3, 7])) == cached.read(np.array([3, 7]))).all()
