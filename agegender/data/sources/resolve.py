"""Resolve the folder of the images: given, of a table, drawn, or downloaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.data.sources import synthetic
from agegender.data.sources.download import fetch_utkface
from agegender.errors import AgeGenderError, require
from agegender.system.progress import progress_bar

log = logging.getLogger(__name__)

DEFAULT_DIR = Path("data/UTKFace")  # of conf/data/utkface.yaml: the only folder that a download stands in for


def resolve_data_dir(
    given: str | None, table: Path | None, synthetic: Mapping[str, Any] | None, cache_dir: Path
) -> Path:
    """Return the folder of the images, drawing or downloading them first if needed.

    Args:
        given: `data.dir`. With a table, the base of its relative paths; None for the table's own folder. If
            `DEFAULT_DIR` doesn't exist, UTKFace is downloaded.
        table: `data.table`.
        synthetic: `data.synthetic`.
        cache_dir: Folder of drawn and downloaded images.

    Raises:
        AgeGenderError: No source is set, a folder other than `DEFAULT_DIR` doesn't exist, or the images can't be
            obtained.
    """
    if synthetic is not None:
        return _draw(cache_dir, **synthetic)
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
        may_fetch = folder == DEFAULT_DIR and not folder.is_symlink()
        missing = f"data.dir={given} does not exist (no folder {folder.absolute()}): correct it"
        require(may_fetch, f"{missing}, or set data.dir={DEFAULT_DIR}, for which UTKFace is downloaded")
        return fetch_utkface(cache_dir, folder)
    require(given is None, f"data.dir={folder} does not exist; the paths in {table} start from there")
    return folder  # the table doesn't exist either: `read_table` raises


def _draw(cache_dir: Path, count: int = 2000, seed: int = 0, size: int = 200, **options: Any) -> Path:
    chosen = [name.removesuffix("_files") for name, is_chosen in options.items() if is_chosen]  # odd, glasses
    folder = cache_dir / "synthetic" / "-".join([f"v{synthetic.VERSION}-{count}-{seed}-{size}", *chosen])
    if folder.is_dir():
        return synthetic.generate_faces(folder, count, seed, size, **options)  # only checks the folder
    log.info("drawing %d cartoon faces into %s: results on them say nothing about real people", count, folder)
    with progress_bar("drawing faces", count) as show:
        return synthetic.generate_faces(folder, count, seed, size, **options, progress=show)
