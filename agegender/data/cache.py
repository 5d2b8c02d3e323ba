"""Decode once: every picture's pixels in one memory-mapped array, shared by all processes that read it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from agegender.data import decode
from agegender.errors import AgeGenderError
from agegender.files import write_whole
from agegender.progress import map_threads

log = logging.getLogger(__name__)


class CachedPixels:
    """Pixels of an index's files from a memory-mapped array: a batch is one indexed read.

    The array is keyed on what the files hold (not their names), on the size, the colour mode and the decoder. So a
    changed, added or removed file makes another array, and two runs over the same pictures share one.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        digests: Sequence[str],
        used: NDArray[np.int64],
        size: int,
        grayscale: bool,
        cache_dir: Path,
    ):
        """Opens the array, building it first where there is none.

        Args:
            folder: Where the files are.
            names: The index's files.
            digests: Their SHA-256.
            used: The files to hold, by their place in the index.
            size: Side of the pixels' square.
            grayscale: One channel instead of three.
            cache_dir: Where the array is kept.

        Raises:
            AgeGenderError: A file became unreadable since it was indexed, or the array can't be written.
        """
        unique = dict(sorted((digests[i], names[i]) for i in used.tolist()))
        row_of = {digest: row for row, digest in enumerate(unique)}
        shape = (len(unique), size, size, 1 if grayscale else 3)
        recipe = f"{decode.VERSION}:{PIL.__version__}:{shape}:" + "".join(unique)
        self.path = cache_dir / "pixels" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}-{size}x{shape[3]}.npy"
        if not self.path.is_file():
            _build(self.path, folder, list(unique.values()), shape, grayscale)
        self._array: NDArray[np.uint8] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        self._rows = np.array([row_of.get(digest, len(unique)) for digest in digests], dtype=np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the pixels out: a worker process opens the file itself instead of being sent all of it."""
        return {"path": self.path, "_rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Opens the file."""
        self.__dict__.update(state)
        self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns uint8 `[len(indices), size, size, channels]` for files given by their place in the index."""
        pixels: NDArray[np.uint8] = self._array[self._rows[indices]]
        return pixels


class DecodedPixels:
    """Pixels of an index's files, decoded anew at every read (`data.cache=none`)."""

    def __init__(self, folder: Path, names: Sequence[str], size: int, grayscale: bool):
        """Keeps where the files are; see `CachedPixels` for the arguments."""
        self._folder, self._names, self._size, self._grayscale = folder, list(names), size, grayscale

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns uint8 `[len(indices), size, size, channels]` for files given by their place in the index."""
        paths = [self._folder / self._names[i] for i in indices.tolist()]
        return np.stack([_decode(path, self._size, self._grayscale) for path in paths])


def _build(path: Path, folder: Path, names: list[str], shape: tuple[int, ...], grayscale: bool) -> None:
    megabytes = int(np.prod(shape)) / 1e6
    log.info("decoding %d images once into %s (%.0f MB)", len(names), path, megabytes)
    try:
        with write_whole(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            for pixels in map_threads(lambda name: _decode(folder / name, shape[1], grayscale), names, "decoding"):
                file.write(pixels.tobytes())
    except OSError as error:
        raise AgeGenderError(
            f"can't write the pixel cache {path} ({megabytes:.0f} MB: {error.strerror}); "
            "free the disk, choose data.cache_dir=..., or set data.cache=none"
        ) from None


def _decode(path: Path, size: int, grayscale: bool) -> NDArray[np.uint8]:
    try:
        return decode.to_pixels(decode.read_image(path), size, grayscale)
    except decode.UnreadableImageError as error:
        raise AgeGenderError(
            f"{path} was readable when it was indexed and no longer is ({error}); start again"
        ) from None
