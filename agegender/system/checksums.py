"""CRC-32 checksums of stored files: appended when a file is written, verified whole before it is read."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_TRAILER = struct.Struct("<8sI")  # readers of .npy and .npz files ignore what follows their content
_MAGIC = b"agecrc32"
_BLOCK = 1 << 20  # bytes


def crc32_of(path: Path, size: int | None = None) -> int:
    """Return the CRC-32 of a file, or of its first `size` bytes."""
    checksum, block = 0, bytearray(_BLOCK)
    left = path.stat().st_size if size is None else size
    with path.open("rb", buffering=0) as file:
        while left > 0 and (count := file.readinto(memoryview(block)[: min(left, _BLOCK)])):
            checksum = zlib.crc32(memoryview(block)[:count], checksum)
            left -= count
    return checksum


def append_checksum(path: Path, file: IO[bytes]) -> None:
    """Append the trailer to a complete file; `file` is open for writing at `path`."""
    file.flush()
    file.seek(0, os.SEEK_END)
    file.write(_TRAILER.pack(_MAGIC, crc32_of(path)))


def is_intact(path: Path, remedy: str) -> bool:
    """Return whether a file exists and has the checksum that it was written with; log one line if it is damaged.

    Checking takes about 0.5 ms per MB.

    Args:
        path: A file written by `atomic_write` with a checksum.
        remedy: What the caller does about a damaged file, for the message.
    """
    if not path.is_file():
        return False
    try:
        size = path.stat().st_size - _TRAILER.size
        with path.open("rb") as file:
            file.seek(max(size, 0))
            if size >= 0 and file.read() == _TRAILER.pack(_MAGIC, crc32_of(path, size)):
                return True
        reason = "its checksum doesn't match"
    except OSError as error:
        reason = error.strerror or str(error)
    log.warning("%s is damaged (%s): %s", path, reason, remedy)
    return False
