"""Explore a folder of faces: `python -m agegender.evaluation.explore data.dir=...`; `--help` lists the settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

from agegender.cli import launch, one_line_errors
from agegender.errors import AgeGenderError, require
from agegender.evaluation.data_figures import DataSummary, summarise
from agegender.evaluation.page import write_page
from agegender.files import write_whole

if TYPE_CHECKING:  # torch and matplotlib are imported late, so that errors in the settings are reported at once
    from agegender.data.datamodule import AgeGenderDataModule

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[2] / "conf"


def explore(data: dict[str, Any], out: str, samples: int = 48, outliers: int = 16, seed: int = 0) -> Path:
    """Write statistics of a folder of faces as a page with plots, as JSON and as CSV tables.

    Args:
        data: Arguments of `AgeGenderDataModule`; no image is decoded to the network's size.
        out: Folder for `explore.html`, `explore.json`, `index.csv`, `quarantine.csv` and `plots/`. It is created if
            needed; files of an earlier run under these names are replaced.
        samples: Number of faces in the random sample.
        outliers: Number of faces of each kind of outlier.
        seed: Random seed of the sample; not below 0.

    Returns:
        Path of the page.

    Raises:
        AgeGenderError: Settings that don't fit, no usable image, a split without faces, or a folder that can't be
            written.
    """
    from agegender.evaluation.data_page import build_data_page
    from agegender.evaluation.data_plots import Album

    for name, value, least in (("samples", samples, 1), ("outliers", outliers, 1), ("seed", seed, 0)):
        require(value >= least, f"{name}={value} must be at least {least}")
    folder = Path(out).expanduser()
    require(not folder.exists() or folder.is_dir(), f"out={out} is a file; give a folder for the page and its plots")
    module = _data_module(data)
    index = module.find_index()
    log.info("measuring brightness, contrast and sharpness")
    found = summarise(index, module.split_settings, outliers)
    album = Album(index)
    chosen = np.random.default_rng(seed).choice(len(index.names), min(samples, len(index.names)), replace=False)
    sample = sorted(chosen.tolist(), key=lambda row: (index.age[row], row))
    page = build_data_page(found, album, sample, drawn=bool(data.get("generate")))
    try:
        write_page(page, folder / "explore.html", folder / "plots")
        _write_files(found, folder, album.sheet(sample))
    except OSError as error:
        raise AgeGenderError(f"can't write to out={out} ({error.strerror}); choose another folder") from None
    for fact in page.facts:
        print(": ".join(fact))
    return folder / "explore.html"


def _data_module(data: Mapping[str, Any]) -> AgeGenderDataModule:
    from agegender.data.datamodule import AgeGenderDataModule
    from agegender.data.synthetic import generate_faces
    from agegender.signatures import check_call

    require("source" not in data, "explore reads images, not shards: give the folder that was packed, data.dir=...")
    check_call("data", data, AgeGenderDataModule, given=("augment", "seed"))
    check_call("data.generate", data.get("generate") or {}, generate_faces, given=("folder", "progress"))
    return AgeGenderDataModule(**data)


def _write_files(found: DataSummary, folder: Path, sheet: bytes) -> None:
    with write_whole(folder / "plots" / "samples.png") as file:
        file.write(sheet)
    with write_whole(folder / "explore.json", "w", encoding="utf-8") as file:
        json.dump(found.figures, file, indent=2)
    found.index.write_csv(folder / "index.csv")
    found.index.write_quarantine(folder / "quarantine.csv")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="explore")
def main(config: DictConfig) -> None:
    """Writes the page and says where it is."""
    with one_line_errors():
        from agegender.signatures import check_call

        settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        check_call("", settings, explore)
        print(f"page: {explore(**settings)}")


if __name__ == "__main__":
    launch(main, "explore", CONF)
