"""Bundle a run's best weights for distribution: `agegender bundle run=logs/small/<time> out=small.ckpt`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from agegender.config.overrides import as_written
from agegender.data.index.utkface import LICENSE
from agegender.errors import AgeGenderError, require
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.system.files import atomic_write
from agegender.weights.age_bands import read_age_bands

# Prefixes and names of the results in the JSON file; folders and machine names are not distributed.
_RESULT_PREFIXES = ("val/", "test/", "baseline/", "images/", "version/", "split", "protocol", "leak", "duplicates")
_OMITTED_OVERRIDES = ("data.dir", "data.cache_dir", "test", "report", "resume", "weights")
_RESULTS = ("tasks", "best_epoch", "epochs", "parameters", "seed", "hardware", "precision", "train_seconds")


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
    checkpoint = load_checkpoint(find_checkpoint(run))
    metrics_file = run / "metrics.json"
    require(metrics_file.is_file(), f"run={run} has no metrics.json, which is bundled too: give a tested run")
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    tested = any(name.startswith("test/") for name in metrics)
    require(tested, f"run={run} has no test metrics, which are bundled too: give a tested run")
    bands = read_age_bands(run)
    network = {f"network.{name}": _to_half(value) for name, value in checkpoint["network"].items()}
    with atomic_write(out) as file:
        torch.save({"agegender": checkpoint["agegender"], "state_dict": network}, file)
    record: dict[str, Any] = {
        "command": " ".join(["python train.py", *_training_overrides(_overrides(run, metrics))]),
        "license": LICENSE,
        "origin": checkpoint["agegender"].get("origin"),
    }
    record |= {name: value for name, value in metrics.items() if name.startswith(_RESULT_PREFIXES) or name in _RESULTS}
    if bands is not None:
        record["bands"] = bands
    with atomic_write(out.with_suffix(".json"), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
    return out


def bundle_command(run: str | None, out: str | None) -> Path:
    """Bundle the weights of the settings `run` and `out`; see `bundle`.

    Raises:
        AgeGenderError: A setting is missing, or see `bundle`.
    """
    if not run or not out:
        raise AgeGenderError("run= or out= is missing: agegender bundle run=logs/small/<date_time> out=small.ckpt")
    return bundle(Path(run), Path(out))


def _overrides(run: Path, metrics: dict[str, Any]) -> list[str]:
    """Return the overrides of a run, from its `.hydra` record or, if that is missing, from its metrics."""
    record = run / ".hydra" / "overrides.yaml"
    if not record.is_file():
        return str(metrics["overrides"]).split()
    return [shlex.quote(item) if " " in item else item for item in as_written(OmegaConf.load(record))]


def _training_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides that influence the weights, without folders and settings of the evaluation."""
    return [item for item in overrides if item.lstrip("'+").split("=")[0] not in _OMITTED_OVERRIDES]


def _to_half(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):  # a calibration
        return value
    return value.half() if value.is_floating_point() and value.ndim > 1 else value.clone()
