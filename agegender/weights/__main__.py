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
from agegender.files import write_whole

# What a stranger must know to judge the figures; of the rest, folders and machines are nobody's business.
_KEPT = ("val/", "test/", "baseline/", "images/", "version/", "split", "duplicates")
_ALSO = ("best_epoch", "epochs", "parameters", "seed", "overrides", "hardware", "precision", "train_seconds")


def pack(run: Path, out: Path) -> Path:
    """Writes a run's best weights in half precision, and its figures beside them.

    What is kept in half precision are the convolutions' and dense layers' weights. Norms and biases are few, and their
    sums are better kept whole.

    Args:
        run: The folder of a run that was tested.
        out: Where to; its figures go to the same name ending in .json.

    Raises:
        AgeGenderError: The run has no best checkpoint or no figures.
    """
    checkpoint = load_checkpoint(find_checkpoint(run))
    figures_file = run / "metrics.json"
    require(figures_file.is_file(), f"run={run} has no metrics.json: weights are shipped with what they scored")
    figures = json.loads(figures_file.read_text(encoding="utf-8"))
    require("test/age_mae" in figures, f"run={run} was not tested: weights are shipped with what they scored")
    network = {f"network.{name}": _halved(value) for name, value in checkpoint["network"].items()}
    with write_whole(out) as file:
        torch.save({"agegender": checkpoint["agegender"], "state_dict": network}, file)
    told: dict[str, Any] = {"command": f"python train.py {figures['overrides']}".strip()}
    told |= {name: value for name, value in figures.items() if name.startswith(_KEPT) or name in _ALSO}
    with write_whole(out.with_suffix(".json"), "w", encoding="utf-8") as file:
        json.dump(told, file, indent=2)
        file.write("\n")
    return out


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
