"""Decode once: every picture's pixels in one memory-mapped array, shared by all processes that read it."""

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
from agegender.files import caching, one_at_a_time, reserve, write_whole
from agegender.parallel import map_processes

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def open_pixels(
    folder: Path,
    names: Sequence[str],
    digests: Sequence[str],
    used: NDArray[np.int64],
    size: int,
    grayscale: bool,
    cache_dir: Path,
) -> CachedPixels:
    """Opens the pixels' array, building it first where there is none (`data.cache=auto`).

    The array is keyed on what the files hold (not their names), on the size, the colour mode and the decoder. So a
    changed, added or removed file makes another array, and two runs over the same pictures share one.

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
    shape = (len(unique), size, size, 1 if grayscale else 3)
    recipe = f"{decode.VERSION}:{PIL.__version__}:{shape}:" + "".join(unique)
    path = cache_dir / "pixels" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}-{size}x{shape[3]}.npy"
    if not path.is_file():
        without = "use data.cache=none, which decodes every image anew at every read"
        with caching("the pixel cache", path, math.prod(shape), without):
            _build_once(path, folder, list(unique.values()), shape)
    row_of = {digest: row for row, digest in enumerate(unique)}
    return CachedPixels(path, np.array([row_of.get(digest, len(unique)) for digest in digests], dtype=np.int64))


class CachedPixels:
    """Pixels of an index's files from a memory-mapped array: a batch is one indexed read."""

    def __init__(self, path: Path, rows: NDArray[np.int64]):
        """Opens the array at `path`; `rows` gives each of the index's files its row, or one past the last."""
        self.path, self._rows = path, rows
        self._array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)

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

    def places(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns where `as_tensor` holds files given by their place in the index."""
        places: NDArray[np.int64] = self._rows[indices]
        return places

    def as_tensor(self) -> Tensor:
        """Returns all pixels, uint8 `[pictures, size, size, channels]`, without reading them: it views the file."""
        import torch  # `explore` needs no more of this file than a command that answers at once can wait for

        return torch.from_numpy(np.load(self.path, mmap_mode="c", allow_pickle=False))  # "c": PyTorch wants it writable


class DecodedPixels:
    """Pixels of an index's files, decoded anew at every read (`data.cache=none`)."""

    def __init__(self, folder: Path, names: Sequence[str], size: int, grayscale: bool):
        """Keeps where the files are; see `open_pixels` for the arguments."""
        self._folder, self._names, self._size, self._grayscale = folder, list(names), size, grayscale

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns uint8 `[len(indices), size, size, channels]` for files given by their place in the index."""
        paths = [self._folder / self._names[i] for i in indices.tolist()]
        return np.stack([decode.to_pixels(decode.read_again(path), self._size, self._grayscale) for path in paths])


def _build_once(path: Path, folder: Path, names: list[str], shape: tuple[int, ...]) -> None:
    """Builds the array, or waits for another run that is building it."""
    with one_at_a_time(path, f"another run is decoding the same images: waiting for {path}"):
        if path.is_file():
            return
        log.info("decoding %d images once into %s (%.0f MB)", len(names), path, math.prod(shape) / 1e6)
        with write_whole(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.flush()
            reserve(file, file.tell() + math.prod(shape))
            fill = partial(decode.write_pixels, Path(file.name), file.tell(), folder, shape[1], shape[3] == 1)
            for _ in map_processes(fill, list(enumerate(names)), "decoding"):
                pass
