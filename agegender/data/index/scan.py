"""Cached scan of a folder: each file's digest, thumbnail and readability."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data import decode
from agegender.data.index import duplicates
from agegender.data.index.duplicates import THUMBNAIL, Mode
from agegender.system.checksums import is_intact
from agegender.system.files import atomic_write, raise_cache_errors
from agegender.system.parallel import map_processes

log = logging.getLogger(__name__)

VERSION = 1  # part of the cache's key: increment it when digests, thumbnails or reasons change


class _Reading(NamedTuple):
    """Scan result of one file; `reason` is empty if the file decoded completely."""

    size: int
    mtime_ns: int
    digest: str
    thumbnail: NDArray[np.uint8]
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """The readable files of a folder.

    Attributes:
        names: File names, sorted.
        digests: SHA-256 of each file, hexadecimal.
        thumbnails: uint8 `[n, THUMBNAIL, THUMBNAIL]`, gray.
        unreadable: File name to reason.
    """

    names: list[str]
    digests: list[str]
    thumbnails: NDArray[np.uint8]
    unreadable: dict[str, str]


def scan_folder(folder: Path, names: Sequence[str], cache_dir: Path) -> ScanResult:
    """Scan files: their SHA-256, whether they decode completely, and their gray thumbnails.

    Results are cached in `cache_dir` and reused while a file's size and modification time stay the same.

    Args:
        folder: Folder of the files.
        names: Names of the files to scan.
        cache_dir: Folder of the cached results.

    Raises:
        FaultError: The cache can't be written.
    """
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    kept_at = cache_dir / "scans" / f"{key}-v{VERSION}.{decode.VERSION}.npz"
    known = _load(kept_at)
    fresh = [name for name in names if not _is_current(folder / name, known.get(name))]
    if fresh:
        log.info("reading %d images of %s", len(fresh), folder)
        known |= zip(fresh, map_processes(partial(_read_all, folder), fresh, "reading images"), strict=True)
        _save(kept_at, {name: known[name] for name in names})
    whole = [name for name in names if not known[name].reason]
    thumbnails = [known[name].thumbnail for name in whole]
    return ScanResult(
        names=whole,
        digests=[known[name].digest for name in whole],
        thumbnails=np.stack(thumbnails) if thumbnails else np.zeros((0, THUMBNAIL, THUMBNAIL), np.uint8),
        unreadable={name: known[name].reason for name in names if known[name].reason},
    )


def group_duplicates(scanned: ScanResult, mode: Mode, cache_dir: Path) -> NDArray[np.int64]:
    """Return the duplicate group of each image (see `duplicates.find_duplicate_groups`), cached per set of images."""
    if mode != "near":
        return duplicates.find_duplicate_groups(scanned.digests, scanned.thumbnails, mode)
    key = hashlib.sha256("".join(scanned.digests).encode()).hexdigest()[:16]
    kept_at = cache_dir / "scans" / f"{key}-groups-v{VERSION}.{decode.VERSION}.{duplicates.VERSION}.npy"
    if is_intact(kept_at, "copies are looked for again"):
        kept: NDArray[np.int64] = np.load(kept_at, allow_pickle=False)
        return kept
    if len(scanned.names) > 5_000:
        log.info("looking for near copies among %d images", len(scanned.names))
    groups = duplicates.find_duplicate_groups(scanned.digests, scanned.thumbnails, mode)
    described = "the copies that were found"
    with raise_cache_errors(described, kept_at, groups.nbytes), atomic_write(kept_at, checksum=True) as file:
        np.save(file, groups)
    return groups


def _read_all(folder: Path, names: Sequence[str]) -> list[_Reading]:
    return [_read(folder / name) for name in names]


def _read(path: Path) -> _Reading:
    blank = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    try:
        status = path.stat()
        decode.require_regular_file(status.st_mode)
        content = path.read_bytes()
    except decode.UnreadableImageError as error:
        return _Reading(0, 0, "", blank, f"can't be read: {error}")
    except OSError as error:
        return _Reading(0, 0, "", blank, f"can't be read: {error.strerror}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return _Reading(0, status.st_mtime_ns, digest, blank, "an empty file")
    try:
        gray = decode.read_image(content).convert("L")
    except decode.MissingDecoderError as error:
        return _Reading(0, 0, digest, blank, str(error))  # read again, as the package may be installed by then
    except decode.UnreadableImageError as error:
        return _Reading(status.st_size, status.st_mtime_ns, digest, blank, str(error))
    thumbnail = np.asarray(gray.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return _Reading(status.st_size, status.st_mtime_ns, digest, thumbnail, "")


def _is_current(path: Path, reading: _Reading | None) -> bool:
    if reading is None:
        return False
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (reading.size, reading.mtime_ns)


def _load(path: Path) -> dict[str, _Reading]:
    if not is_intact(path, "the images are read again"):
        return {}
    with np.load(path, allow_pickle=False) as kept:
        columns = [kept[name] for name in ("size", "mtime_ns", "digest", "thumbnail", "reason")]
        names = kept["name"].tolist()
    size, mtime_ns, digest, thumbnail, reason = (c if c.ndim > 1 else c.tolist() for c in columns)
    return {
        name: _Reading(*row)
        for name, row in zip(names, zip(size, mtime_ns, digest, thumbnail, reason, strict=True), strict=True)
    }


def _save(path: Path, readings: dict[str, _Reading]) -> None:
    rows = list(readings.values())
    columns: dict[str, NDArray[Any]] = {
        "name": np.array(list(readings)),
        "size": np.array([row.size for row in rows], np.int64),
        "mtime_ns": np.array([row.mtime_ns for row in rows], np.int64),
        "digest": np.array([row.digest for row in rows]),
        "thumbnail": np.stack([row.thumbnail for row in rows]),
        "reason": np.array([row.reason for row in rows]),
    }
    size = sum(column.nbytes for column in columns.values())
    with raise_cache_errors("what the images hold", path, size), atomic_write(path, checksum=True) as file:
        np.savez(file, **columns)  # type: ignore[arg-type]  # mypy can't tell columns from keywords
