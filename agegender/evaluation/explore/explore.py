"""Describe a folder of faces on one page: `agegender explore data.dir=...`; `--help` lists the settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from agegender.errors import AgeGenderError, require
from agegender.evaluation.explore.summary import DataSummary, summarize
from agegender.evaluation.html.page import write_page
from agegender.system.files import atomic_write
from agegender.tasks.labels import labels_of

log = logging.getLogger(__name__)


def explore(
    data: dict[str, Any],
    out: str,
    samples: int = 48,
    outliers: int = 16,
    seed: int = 0,
    tasks: dict[str, Any] | None = None,
) -> Path:
    """Write statistics of a folder of faces as a page with plots, as JSON and as CSV tables.

    Args:
        data: Arguments of `AgeGenderDataModule`; no image is decoded to the network's size.
        out: Folder for `explore.html`, `explore.json`, `index.csv`, `quarantine.csv` and `plots/`. It is created if
            needed; files of an earlier run under these names are replaced.
        samples: Number of faces in the random sample.
        outliers: Number of faces of each kind of outlier.
        seed: Random seed of the sample; not below 0.
        tasks: Tasks whose labels are described beside those of file names, as in `conf/tasks`.

    Returns:
        Path of the page.

    Raises:
        AgeGenderError: Settings that don't fit, no usable image, a split without faces, or a folder that can't be
            written.
    """
    # torch and matplotlib are imported where they are needed: mistakes answer without them
    from agegender.data.settings import folder_module
    from agegender.evaluation.explore.page import build_data_page
    from agegender.evaluation.explore.plots import FaceSheet

    for name, value, least in (("samples", samples, 1), ("outliers", outliers, 1), ("seed", seed, 0)):
        require(value >= least, f"{name}={value} must be at least {least}")
    folder = Path(out).expanduser()
    require(not folder.exists() or folder.is_dir(), f"out={out} is a file; give a folder for the page and its plots")
    refusal = "explore looks at a folder of images: give the one that was packed, data.dir=..."
    module = folder_module(data, refusal, labels_of(tasks or {}))
    index = module.find_index()
    log.info("measuring brightness, contrast and sharpness")
    found = summarize(index, module.split_settings, outliers)
    album = FaceSheet(index)
    chosen = np.random.default_rng(seed).choice(len(index.names), min(samples, len(index.names)), replace=False)
    ages = np.nan_to_num(index.labels["age"], nan=-1)
    sample = sorted(chosen.tolist(), key=lambda row: (ages[row], row))
    page = build_data_page(found, album, sample, drawn=bool(data.get("synthetic")))
    try:
        write_page(page, folder / "explore.html", folder / "plots")
        _write_files(found, folder, album.sheet(sample))
    except OSError as error:
        raise AgeGenderError(f"can't write to out={out} ({error.strerror}); choose another folder") from None
    for fact in page.facts:
        print(": ".join(fact))
    return folder / "explore.html"


def _write_files(found: DataSummary, folder: Path, sheet: bytes) -> None:
    with atomic_write(folder / "plots" / "samples.png") as file:
        file.write(sheet)
    with atomic_write(folder / "explore.json", "w", encoding="utf-8") as file:
        json.dump(found.figures, file, indent=2)
    found.index.write_csv(folder / "index.csv")
    found.index.write_quarantine(folder / "quarantine.csv")
