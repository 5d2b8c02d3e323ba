"""Packs a run's best weights to be passed on: `python -m agegender.weights run=logs/small/<time> out=small.ckpt`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from agegender.checkpoint import find_checkpoint, load_checkpoint
from agegender.cli import one_line_errors
from agegender.errors import require
from agegender.evaluation.report_bands import read_bands
from agegender.files import write_whole
from agegender.weights import LICENCE

# What a stranger must know to judge the figures; of the rest, folders and machines are nobody's business.
_KEPT = ("val/", "test/", "baseline/", "images/", "version/", "split", "duplicates")
_ALSO = ("min_confidence", "best_epoch", "epochs", "parameters", "seed", "hardware", "precision", "train_seconds")


def pack(run: Path, out: Path) -> Path:
    """Write a run's best weights in half precision, and its figures beside them.

    What is kept in half precision are the convolutions' and dense layers' weights. Norms and biases are few, and their
    sums are better kept whole.

    Args:
        run: The folder of a run that was tested; if it has a report, the figures by age band come along.
        out: Where to; its figures go to the same name ending in .json.

    Raises:
        AgeGenderError: The run has no best checkpoint or no figures, or its report is damaged.
    """
    checkpoint = load_checkpoint(find_checkpoint(run))
    figures_file = run / "metrics.json"
    require(figures_file.is_file(), f"run={run} has no metrics.json: weights are shipped with what they scored")
    figures = json.loads(figures_file.read_text(encoding="utf-8"))
    require("test/age_mae" in figures, f"run={run} was not tested: weights are shipped with what they scored")
    bands = read_bands(run)
    network = {f"network.{name}": _halved(value) for name, value in checkpoint["network"].items()}
    with write_whole(out) as file:
        torch.save({"agegender": checkpoint["agegender"], "state_dict": network}, file)
    told: dict[str, Any] = {
        "command": " ".join(["python train.py", *_telling(figures["overrides"].split())]),
        "licence": LICENCE,
        "origin": checkpoint["agegender"].get("origin"),
    }
    told |= {name: value for name, value in figures.items() if name.startswith(_KEPT) or name in _ALSO}
    if bands is not None:
        told["bands"] = bands
    with write_whole(out.with_suffix(".json"), "w", encoding="utf-8") as file:
        json.dump(told, file, indent=2)
        file.write("\n")
    return out


def _telling(overrides: list[str]) -> list[str]:
    """Return the overrides that made the weights what they are, without where they lay and what came afterwards."""
    return [
        given for given in overrides if given.split("=")[0] not in ("data.dir", "test", "report", "resume", "weights")
    ]


def _halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() and value.ndim > 1 else value.clone()


def main() -> None:
    """Packs the run that the command line names."""
    given = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    with one_line_errors():
        fits = set(given) == {"run", "out"} and all(given.values())
        require(
            fits, "say which run and where to: python -m agegender.weights run=logs/small/<date_time> out=small.ckpt"
        )
        out = pack(Path(given["run"]), Path(given["out"]))
        print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
