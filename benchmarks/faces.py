"""The images of the benchmarks: a folder given by `--data`, or synthetic faces of UTKFace's size."""

from __future__ import annotations

import argparse
from pathlib import Path

from agegender.data.datamodule import AgeGenderDataModule


def parser(description: str) -> argparse.ArgumentParser:
    """Return an argument parser with `--data` and `--rounds`."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, help="folder of UTKFace-named faces; synthetic faces without it")
    made.add_argument("--rounds", type=int, default=5, help="number of pairs of measurements")
    return made


def data_module(folder: Path | None, count: int = 2000, **settings: object) -> AgeGenderDataModule:
    """Return a datamodule, set up, on the folder or on `count` synthetic faces of 200 x 200 pixels."""
    chosen: dict[str, object] = {"dir": str(folder)} if folder else {"synthetic": {"count": count}}
    data = AgeGenderDataModule(**{**chosen, **settings})  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data
