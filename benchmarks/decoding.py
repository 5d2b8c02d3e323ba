"""Speed of building the pixel cache, as a ratio to the bare decoder; the required ratio is 0.90.

The cache is built by `open_pixel_cache` in an empty folder, at 128 x 128 pixels in RGB: reading, decoding, resizing and
writing, including threads, lock and progress bar. The baseline is the bare decoder, `read_image` and
`eval_transform` in a loop that discards the pixels, in one process per core, started beforehand. Both take the same
files, without duplicates. Rates are in images per second.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from agegender.data.loading.pixel_cache import MemmapPixels, open_pixel_cache
from agegender.system.progress import available_cores
from benchmarks.bare import decode
from benchmarks.faces import data_module, parser
from benchmarks.paired import Paired, in_turn

SIZE = 128
MOST = 20_000  # maximum number of files of a folder


def measure(folder: Path | None, rounds: int = 5) -> Paired:
    """Time the build of the cache and the bare decoder in turn, on synthetic faces or up to 20,000 of the folder's."""
    data = data_module(folder, cache="none", limit=MOST)
    index = data.index
    used = np.sort(np.concatenate([data.split(name).rows for name in ("train", "val", "test")]))
    _, firsts = np.unique(np.array(index.digests)[used], return_index=True)
    paths = [index.folder / index.names[row] for row in used[firsts]]
    cores = available_cores()
    parts = [paths[core::cores] for core in range(cores)]

    def build() -> int:
        with tempfile.TemporaryDirectory(dir=data.cache_dir) as fresh:
            pixels = open_pixel_cache(index.folder, index.names, index.digests, used, SIZE, False, Path(fresh))
            assert isinstance(pixels, MemmapPixels)
        return len(paths)

    bare = partial(decode, size=SIZE, grayscale=False)
    # Spawned, not forked: a fork copies the state of this process's threads, but not the threads.
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return in_turn(
            "cache build against bare decoder", build, lambda: sum(pool.map(bare, parts, chunksize=1)), rounds
        )


def main() -> None:
    """Print the ratio in one line."""
    arguments = parser("The build of the pixel cache against the bare decoder.").parse_args()
    print(measure(arguments.data, arguments.rounds))


if __name__ == "__main__":
    main()
