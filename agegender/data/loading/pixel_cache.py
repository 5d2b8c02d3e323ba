"""Pixel cache: decoded images in one memory-mapped array, shared by all processes that read it."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from numpy.typing import NDArray

from agegender.data import decode
from agegender.system.checksums import is_intact
from agegender.system.files import atomic_write, exclusive_lock, preallocate, raise_cache_errors
from agegender.system.parallel import map_processes

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def open_pixel_cache(
    folder: Path,
    names: Sequence[str],
    digests: Sequence[str],
    used: NDArray[np.int64],
    size: int,
    grayscale: bool,
    cache_dir: Path,
) -> MemmapPixels:
    """Open the pixel array, building it first if it doesn't exist or is damaged (`data.cache=auto`).

    The array is keyed on the contents of the files (not their names), the size, the color mode and the decoder. So a
    changed, added or removed file needs a new array, and two runs over the same images share one.

    Args:
        folder: Folder of the files.
        names: File names of the index.
        digests: SHA-256 of each file.
        used: int64, the rows of the index whose images the array holds.
        size: Side of the square images in pixels.
        grayscale: One channel instead of three.
        cache_dir: Folder of the array.

    Raises:
        AgeGenderError: A file became unreadable since it was indexed, or the array can't be written.
    """
    unique = dict(sorted((digests[i], names[i]) for i in used.tolist()))
    shape = (len(unique), size, size, 1 if grayscale else 3)
    recipe = f"{decode.VERSION}:{PIL.__version__}:{shape}:" + "".join(unique)
    path = cache_dir / "pixels" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}-{size}x{shape[3]}.npy"
    if not is_intact(path, "the images are decoded again"):
        without = "use data.cache=none, which decodes every image anew at every read"
        with raise_cache_errors("the pixel cache", path, math.prod(shape), without):
            _build_once(path, folder, list(unique.values()), shape)
    row_of = {digest: row for row, digest in enumerate(unique)}
    return MemmapPixels(path, np.array([row_of.get(digest, len(unique)) for digest in digests], dtype=np.int64))


class MemmapPixels:
    """Images of an index in a memory-mapped array: a batch is one indexed read."""

    def __init__(self, path: Path, rows: NDArray[np.int64]):
        """Open the array at `path`; `rows` maps rows of the index to rows of the array, or to one past its last row."""
        self.path, self._rows = path, rows
        self._array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the pixels: a worker process opens the file itself instead of receiving a copy."""
        return {"path": self.path, "_rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state and open the array."""
        self.__dict__.update(state)
        self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of rows of the index, uint8 `[len(indices), size, size, channels]`."""
        pixels: NDArray[np.uint8] = self._array[self._rows[indices]]
        return pixels

    def cache_rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `as_tensor` for rows of the index."""
        places: NDArray[np.int64] = self._rows[indices]
        return places

    def as_tensor(self) -> Tensor:
        """Return all images, uint8 `[images, size, size, channels]`, as a view of the file: nothing is read yet."""
        import torch  # imported here: `explore` uses this module and should start fast

        return torch.from_numpy(np.load(self.path, mmap_mode="c", allow_pickle=False))  # "c": torch needs it writable


class DecodeOnRead:
    """Images of an index, decoded at every read (`data.cache=none`)."""

    def __init__(self, folder: Path, names: Sequence[str], size: int, grayscale: bool):
        """Store the arguments; see `open_pixel_cache`."""
        self._folder, self._names, self._size, self._grayscale = folder, list(names), size, grayscale

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of rows of the index, uint8 `[len(indices), size, size, channels]`."""
        paths = [self._folder / self._names[i] for i in indices.tolist()]
        return np.stack(
            [decode.eval_transform(decode.reread_image(path), self._size, self._grayscale) for path in paths]
        )


def _build_once(path: Path, folder: Path, names: list[str], shape: tuple[int, ...]) -> None:
    """Build the array, or wait for another run that is building it."""
    with exclusive_lock(path, f"another run is decoding the same images: waiting for {path}"):
        if is_intact(path, "the images are decoded again"):
            return
        log.info("decoding %d images once into %s (%.0f MB)", len(names), path, math.prod(shape) / 1e6)
        with atomic_write(path, checksum=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.flush()
            preallocate(file, file.tell() + math.prod(shape))
            fill = partial(decode.decode_into, Path(file.name), file.tell(), folder, shape[1], shape[3] == 1)
            for _ in map_processes(fill, list(enumerate(names)), "decoding"):
                pass
