"""Pack a folder of faces into shards for `data=streaming`: `agegender pack data.dir=... out=shards`."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.data.index.index import FaceIndex
from agegender.data.index.protocol import protocol_of
from agegender.data.index.split import SPLITS, Split
from agegender.data.streaming.packed_index import INDEX, QUARANTINE, VERSION, write_columns, write_manifest
from agegender.data.streaming.shard_format import item_crc32
from agegender.errors import AgeGenderError, missing_extra, require
from agegender.system.files import exclusive_lock
from agegender.system.progress import track
from agegender.tasks.labels import labels_of

log = logging.getLogger(__name__)

MB = 1_000_000  # bytes


def pack(data: dict[str, Any], out: str, shard_mb: int = 64, tasks: dict[str, Any] | None = None) -> Path:
    """Write the faces of a folder as shards, with their labels and their split.

    A shard contains the bytes of the files, not pixels: these are smaller, can be decoded to any image size and color
    mode, and give the same pixels as the folder. Training faces are ordered by the hash of their contents, so that
    neighbors, which LitData's shuffling keeps together, are unrelated.

    Args:
        data: Arguments of `AgeGenderDataModule`, which define the faces and the split.
        out: Output folder, which must not exist or must be empty. It is renamed to `out` after all files were written.
        shard_mb: Size of a shard in MB.
        tasks: Tasks that will be trained on the shards, as in `conf/tasks`: further labels of a table are packed for
            them.

    Returns:
        The folder.

    Raises:
        AgeGenderError: `out` is not empty, the faces can't be indexed, a file changed while it was packed, the disk is
            full, or LitData is missing.
    """
    folder = Path(out).expanduser().resolve()
    require(shard_mb >= 1, f"shard_mb={shard_mb} must be at least 1")
    is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    require(not is_taken, f"out={out} exists and is not empty: set another folder, or remove it")
    try:
        import litdata  # noqa: F401
    except ImportError as error:
        raise missing_extra("packing", error, "stream") from None
    from agegender.data.settings import folder_module  # imports torch, which the checks above don't need

    refusal = "data=streaming is packed already: set a folder of images with data=utkface data.dir="
    module = folder_module(data, refusal, labels_of(tasks or {}))
    split = module.split_settings["split"]
    require(split not in ("random", "test"), f"data.split={split} can't be packed: remove it")
    require(module.leave_out is None, "data.leave_out is for a training from the folder itself: remove it")
    require(module.train_limit is None, "data.train_limit is for a training from the folder itself: remove it")
    index = module.find_index()
    protocol_of(module.split_settings, index.split_source, index.leak).log()
    rows = {side: index.rows(side, module.limit) for side in SPLITS}
    rows["train"] = np.array(sorted(rows["train"].tolist(), key=lambda row: (index.digests[row], row)), np.int64)
    unfinished = folder.with_name(f".{folder.name}.packing")
    try:
        with exclusive_lock(folder, f"another run is packing into {folder}: waiting"):
            if unfinished.exists():  # left by a killed process
                shutil.rmtree(unfinished)
            try:
                _write(unfinished, index, rows, module.split_settings, shard_mb)
                os.replace(unfinished, folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
    except OSError as error:
        raise AgeGenderError(f"can't write out={out} ({error.strerror or error}); choose another folder") from None
    return folder


def _write(
    folder: Path, index: FaceIndex, rows: Mapping[Split, NDArray[np.int64]], settings: dict[str, Any], shard_mb: int
) -> None:
    first = 0
    for side in SPLITS:
        _write_shards(folder / side, index, rows[side], first, shard_mb)
        first += len(rows[side])
    write_columns(folder, index, np.concatenate([rows[side] for side in SPLITS]))
    index.write_csv(folder / INDEX)
    index.write_quarantine(folder / QUARANTINE)
    manifest = {
        "version": VERSION,
        "fingerprint": index.fingerprint,
        "images": {side: len(rows[side]) for side in SPLITS},
        "split": settings,
        "split_source": index.split_source,
        "leak": index.leak and asdict(index.leak),
        "labels": list(index.labels),
        "classes": dict(index.classes),
        "folder": str(index.folder.resolve()),
    }
    write_manifest(folder, manifest)


def _write_shards(folder: Path, index: FaceIndex, rows: NDArray[np.int64], first: int, shard_mb: int) -> None:
    """Write the faces of one split, whose rows in the pack start at `first`."""
    from litdata.streaming import Cache

    folder.mkdir(parents=True)
    labels = np.stack([column[rows] for column in index.labels.values()], axis=1)  # [rows, labels]
    shards = Cache(str(folder), chunk_bytes=shard_mb * MB)
    for position, row in enumerate(track(rows.tolist(), f"packing {folder.name}", len(rows))):
        path = index.folder / index.names[row]
        content = _read(path)
        if hashlib.sha256(content).hexdigest() != index.digests[row]:
            raise AgeGenderError(f"{path} changed while it was packed: run the command again")
        fields: dict[str, Any] = {"image": content, "row": first + position, "labels": labels[position].tobytes()}
        shards[position] = fields | {"crc32": item_crc32(**fields)}
    shards.done()
    shards.merge(1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AgeGenderError(f"{path} can't be read any more ({error.strerror}): run the command again") from None
