"""Bundle a run's best weights for distribution: `agegender bundle run=logs/small/<time> out=small.ckpt`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from agegender.errors import AgeGenderError
from agegender.system.files import atomic_write
from agegender.weights.hub_folder import bundle_hub
from agegender.weights.run_record import find_tested_run, read_run


def bundle(run: Path, out: Path) -> Path:
    """Write a run's best weights in half precision, with its metrics as JSON.

    Only weights of convolutions and dense layers are stored in half precision. Parameters of normalization layers and
    biases are few and sensitive to rounding, so they keep their precision.

    Args:
        run: Folder of a tested run; if it has a report, the metrics by age band are included.
        out: Output checkpoint; the metrics are written to the same name with the extension .json.

    Returns:
        `out`.

    Raises:
        AgeGenderError: The run has no best checkpoint or no metrics, or its report is damaged.
    """
    checkpoint, record = read_run(run)
    network = {f"network.{name}": _to_half(value) for name, value in checkpoint["network"].items()}
    with atomic_write(out) as file:
        torch.save({"agegender": checkpoint["agegender"], "state_dict": network}, file)
    with atomic_write(out.with_suffix(".json"), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
    return out


def bundle_command(
    run: str | None, out: str | None, format: Literal["checkpoint", "hub"] = "checkpoint"
) -> tuple[Path, Path]:
    """Bundle the weights of a run.

    Args:
        run: Folder of a tested run, or a folder of runs (its newest tested run is taken).
        out: Output checkpoint, or for `format="hub"` a folder.
        format: `checkpoint`, see `bundle`; or `hub`, see `hub_folder.bundle_hub`.

    Returns:
        The run's folder, and `out`.

    Raises:
        AgeGenderError: A setting is missing, or see the two functions.
    """
    if not run or not out:
        raise AgeGenderError("run= or out= is missing: agegender bundle run=logs/small out=small.ckpt")
    folder = find_tested_run(Path(run))
    return folder, bundle_hub(folder, Path(out)) if format == "hub" else bundle(folder, Path(out))


def _to_half(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):  # a calibration
        return value
    return value.half() if value.is_floating_point() and value.ndim > 1 else value.clone()
