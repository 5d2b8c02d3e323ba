"""Where the pictures are: in a folder that is given, beside a table, drawn on the spot, or downloaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.data import synthetic
from agegender.data.download import fetch_utkface
from agegender.errors import AgeGenderError, require
from agegender.progress import progress_bar

log = logging.getLogger(__name__)


def find_folder(given: str | None, table: Path | None, generate: Mapping[str, Any] | None, cache_dir: Path) -> Path:
    """Returns the folder of the pictures; draws or downloads them where there is none.

    Args:
        given: `data.dir`. With a table, what its paths start from, None being the table's own folder.
        table: `data.table`.
        generate: `data.generate`.
        cache_dir: Where drawn and downloaded pictures are kept.

    Raises:
        AgeGenderError: Nothing says where they are, or they are not there.
    """
    if generate is not None:
        return _draw(cache_dir, **generate)
    if given is None and table is None:
        raise AgeGenderError(
            "neither data.dir nor data.table is set: give the folder of images; with data=table, the table that lists "
            "them; or draw faces with data=synthetic"
        )
    folder = Path(given).expanduser() if given is not None else Path(table or "").parent
    if folder.is_dir():
        return folder
    if folder.exists():
        raise AgeGenderError(f"data.dir={folder} is a file; give the folder that holds the images")
    if table is None:
        return fetch_utkface(cache_dir, folder)
    require(given is None, f"data.dir={folder} does not exist; the paths in {table} start from there")
    return folder  # nor does the table exist: who reads it says so


def _draw(cache_dir: Path, count: int = 2000, seed: int = 0, size: int = 200, odd_files: bool = False) -> Path:
    name = f"v{synthetic.VERSION}-{count}-{seed}-{size}{'-odd' if odd_files else ''}"
    folder = cache_dir / "synthetic" / name
    if folder.is_dir():
        return synthetic.generate_faces(folder, count, seed, size, odd_files=odd_files)  # only checks it
    log.info("drawing %d cartoon faces into %s: what is learnt from them says nothing about people", count, folder)
    with progress_bar("drawing faces", count) as show:
        return synthetic.generate_faces(folder, count, seed, size, odd_files=odd_files, progress=show)
