"""Index of packed shards: labels and names, memory-mapped, and the manifest with the split."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.index import FaceIndex
from agegender.data.index.protocol import Leak
from agegender.data.index.split import SPLITS
from agegender.data.streaming.shard_format import SHARD_INDEX, check_shards
from agegender.errors import AgeGenderError, missing_extra, require
from agegender.system.checksums import crc32_of
from agegender.system.files import atomic_write, exclusive_lock

log = logging.getLogger(__name__)
for _name in ("litdata", "botocore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they log their cache and credentials at every epoch

VERSION = 4  # increment it when the format of a pack changes
MANIFEST = "pack.json"
LABELS, NAMES, OFFSETS = "labels.npy", "names.bin", "names.npy"
INDEX, QUARANTINE = "index.csv", "quarantine.csv"
CHECKED = (LABELS, NAMES, OFFSETS, INDEX, QUARANTINE, *(f"{side}/{SHARD_INDEX}" for side in SPLITS))
BUCKET = "s3://"


class PackedNames(Sequence[str]):
    """Memory-mapped sequence of file names, whose memory use doesn't grow with their number."""

    def __init__(self, folder: Path):
        """Open the names of the pack in `folder`."""
        self._offsets: NDArray[np.int64] = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
        self._bytes: NDArray[np.uint8] = np.memmap(folder / NAMES, np.uint8, "r")

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return the name of a row, or the names of a slice."""
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        start, end = self._offsets[row], self._offsets[row + 1]
        return os.fsdecode(self._bytes[start:end].tobytes())


@dataclass(frozen=True)
class PackedIndex(FaceIndex):
    """The faces of a pack. Its rows are ordered by split: those of `train` come first, then `val`, then `test`.

    Columns are memory-mapped. Digests and duplicate groups are in `index.csv` only.

    Attributes:
        kept_in: Folder of the columns.
        manifest: Contents of `pack.json`.
    """

    kept_in: Path = Path()
    manifest: dict[str, Any] | None = None

    def described(self, what: str) -> Any:
        """Return an entry of the manifest."""
        return (self.manifest or {})[what]

    def place(self, split: str) -> tuple[int, int]:
        """Return a split's first row and its number of rows."""
        sizes: dict[str, int] = self.described("images")
        before = SPLITS[: SPLITS.index(split)]
        return sum(sizes[name] for name in before), sizes[split]

    def rows(self, split: str, limit: int | None = None) -> NDArray[np.int64]:
        """Return the rows of one split's faces."""
        require(limit is None, "data.limit is decided when the shards are packed")
        start, size = self.place(split)
        return np.arange(start, start + size)

    def write_csv(self, path: Path) -> None:
        """Copy the index that was written when the shards were packed: every file with its split."""
        _copy(self.kept_in / INDEX, path)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, atomic_write(target) as writer:
        shutil.copyfileobj(reader, writer)


def write_columns(folder: Path, index: FaceIndex, rows: NDArray[np.int64]) -> None:
    """Write the labels and names of these rows of an index, in this order."""
    labels = np.stack([column[rows] for column in index.labels.values()])  # [labels, rows]
    names = [os.fsencode(index.names[row]) for row in rows.tolist()]
    np.save(folder / LABELS, labels)
    np.save(folder / OFFSETS, np.cumsum([0, *map(len, names)], dtype=np.int64))
    with (folder / NAMES).open("wb") as file:
        file.writelines(names)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a pack, with the checksums of its other files, except shards, and its own."""
    manifest |= {"crc32": {name: crc32_of(folder / name) for name in CHECKED}}
    manifest |= {"own_crc32": _own_crc32(manifest)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _own_crc32(manifest: dict[str, Any]) -> int:
    rest = {name: value for name, value in manifest.items() if name != "own_crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def _damaged_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the names of the files of a pack, except shards, that are missing or don't have their checksum."""
    if manifest.get("own_crc32") != _own_crc32(manifest):
        return [MANIFEST]
    checksums = manifest["crc32"]
    return [name for name in CHECKED if not (folder / name).is_file() or crc32_of(folder / name) != checksums[name]]


def open_pack(place: str, cache_dir: Path) -> PackedIndex:
    """Open the index of packed faces, downloading it first from an object store.

    Args:
        place: `data.dir`: the folder written by `agegender.data.streaming.pack`, or the `s3://bucket/...` address of a
            copy.
        cache_dir: Folder of downloads.

    Raises:
        AgeGenderError: There is no pack at that place, or it can't be read.
    """
    folder = _fetch(place.rstrip("/"), cache_dir) if place.startswith(BUCKET) else Path(place).expanduser()
    try:
        manifest: dict[str, Any] = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise AgeGenderError(_no_pack_message(place)) from None
    except (OSError, ValueError, TypeError) as error:
        raise AgeGenderError(f"{folder / MANIFEST} can't be read ({error}): pack the faces again") from None
    version = manifest.get("version")
    require(version == VERSION, f"{place} has pack version {version}, not {VERSION}: pack the faces again")
    try:
        damaged = ", ".join(_damaged_files(folder, manifest))
        require(not damaged, f"{damaged} of the pack in {folder} is damaged: copy or pack the faces again")
        for side in SPLITS:
            check_shards(folder / side, manifest["images"][side], has_shards=not place.startswith(BUCKET))
        labels = np.load(folder / LABELS, mmap_mode="r", allow_pickle=False)
        names = PackedNames(folder)
        with (folder / QUARANTINE).open(newline="", encoding="utf-8") as file:
            quarantine = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    except (OSError, ValueError, EOFError) as error:
        raise AgeGenderError(f"the index in {folder} is damaged ({error}): copy or pack the faces again") from None
    size = sum(manifest["images"].values())
    fits = labels.shape == (len(manifest["labels"]), size) and len(names) == size
    require(fits, f"the index in {folder} doesn't fit its {MANIFEST}: copy or pack the faces again")
    return PackedIndex(
        folder=Path(manifest["folder"]),
        names=names,
        labels=dict(zip(manifest["labels"], labels, strict=True)),
        digests=[],
        duplicates=np.zeros(0, np.int64),
        split=np.zeros(0, np.str_),
        fingerprint=manifest["fingerprint"],
        quarantine=quarantine,
        classes={name: tuple(classes) for name, classes in manifest["classes"].items()},
        split_source=manifest["split_source"],
        leak=Leak(**manifest["leak"]) if manifest.get("leak") else None,  # older packs have none
        kept_in=folder,
        manifest=manifest,
    )


def _no_pack_message(place: str) -> str:
    return (
        f"data.dir={place} has no packed faces ({MANIFEST} is missing): set the folder or s3:// address of the output "
        "of `agegender pack data.dir=<images> out=<folder>`"
    )


# Object stores


def fetch_dir(place: str, cache_dir: Path) -> Path:
    """Return the cache folder for the downloads from an address."""
    return cache_dir / "packs" / hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16]


def _fetch(place: str, cache_dir: Path) -> Path:
    """Download everything but the shards, if the manifest changed since the last download."""
    try:
        import boto3
    except ImportError as error:
        raise missing_extra(f"data.dir={place}", error, "stream") from None
    bucket, _, prefix = place.removeprefix(BUCKET).partition("/")
    folder = fetch_dir(place, cache_dir)
    with (
        _report_download_errors(place),
        exclusive_lock(folder, f"another run is fetching the index of {place}: waiting"),
    ):
        client = boto3.client("s3")

        def read(name: str) -> Any:
            return client.get_object(Bucket=bucket, Key=f"{prefix}/{name}".lstrip("/"))["Body"]

        manifest = read(MANIFEST).read()
        if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == manifest:
            damaged = ", ".join(_damaged_files(folder, json.loads(manifest)))
            if not damaged:
                return folder
            log.warning("%s in %s is damaged: the index of %s is fetched again", damaged, folder, place)
        if folder.exists():  # the pack was replaced: the shards that LitData cached are stale
            shutil.rmtree(folder)
        for name in CHECKED:
            with atomic_write(folder / name) as file:
                shutil.copyfileobj(read(name), file)
        with atomic_write(folder / MANIFEST) as file:  # last, since it marks the download as complete
            file.write(manifest)
    return folder


@contextmanager
def _report_download_errors(place: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise AgeGenderError(_no_pack_message(place)) from None
        raise AgeGenderError(f"data.dir={place} can't be read ({error}); check the credentials (AWS_...)") from None
    except BotoCoreError as error:
        reason = " ".join(str(error).split())
        raise AgeGenderError(
            f"data.dir={place} can't be reached ({reason}); check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and the "
            "credentials"
        ) from None
