"""Format of the shards: the fields of an item, its checksum, and the check of LitData's own index of the shards.

LitData's index can name pickles, classes to import, and any path; only what `pack` writes is accepted.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError, require

SHARD_INDEX = "index.json"  # in the folder of each split
FIELDS = {"image": "bytes", "row": "int", "labels": "bytes", "crc32": "int"}  # of an item, with LitData's serializers

_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_SPEC = [1, {"type": "builtins.dict", "context": json.dumps([*FIELDS]), "children_spec": [_LEAF] * len(FIELDS)}]
_CONFIG = {"data_format": [*FIELDS.values()], "data_spec": _SPEC, "item_loader": "PyTreeLoader", "types": FIELDS}


def item_crc32(image: bytes, row: int, labels: bytes) -> int:
    """Return the CRC-32 of an item's other fields; 5 µs for an image of 10 kB."""
    return zlib.crc32(labels, zlib.crc32(struct.pack("<q", row), zlib.crc32(image)))


def check_shards(folder: Path, faces: int, has_shards: bool) -> None:
    """Check the index of a split's shards, and their sizes.

    Args:
        folder: Folder of the index.
        faces: Number of faces of the split.
        has_shards: Whether the shards are in the folder, too, not in an object store.

    Raises:
        AgeGenderError: The index is not one that `pack` writes, or a shard is missing or cut short.
    """
    path = folder / SHARD_INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        config = {name: value for name, value in index["config"].items() if value is not None}
        config["data_spec"] = json.loads(config["data_spec"])
        del config["chunk_bytes"]
        shards = {shard["filename"]: (shard["chunk_bytes"], shard["chunk_size"]) for shard in index["chunks"]}
        is_known = (
            index.keys() == {"chunks", "config", "updated_at"}
            and config == _CONFIG
            and re.fullmatch(r"\d+\.\d+", index["updated_at"]) is not None  # LitData's name of a folder
            and all(re.fullmatch(r"chunk-\d+-\d+\.bin", name) for name in shards)
            and sum(size for _, size in shards.values()) == faces
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AgeGenderError(f"{path} can't be read ({error}): copy or pack the faces again") from None
    require(is_known, f"{path} is not in the format that `agegender pack` writes: pack the faces again")
    for name, (size, _) in shards.items() if has_shards else ():
        is_whole = (folder / name).is_file() and (folder / name).stat().st_size == size
        require(is_whole, f"{folder / name} is missing or damaged (not {size} bytes): copy or pack the faces again")
