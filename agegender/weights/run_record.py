"""Read what is distributed of a run: its best checkpoint, and a record of its metrics, command and license."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from agegender.config.overrides import as_written
from agegender.data.index.utkface import LICENSE
from agegender.errors import require
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint, trained_runs
from agegender.weights.age_bands import read_age_bands

# Prefixes and names of the results in the record; folders and machine names are not distributed.
_RESULT_PREFIXES = ("val/", "test/", "baseline/", "images/", "version/", "split", "protocol", "leak", "duplicates")
_OMITTED_OVERRIDES = ("data.dir", "data.cache_dir", "test", "report", "resume", "weights")
_METRICS = "metrics.json"
_RESULTS = ("tasks", "best_epoch", "epochs", "parameters", "seed", "hardware", "precision", "train_seconds")


def find_tested_run(given: Path) -> Path:
    """Return the run of a `run` setting: a run's folder itself, or the newest tested run below a folder.

    Raises:
        AgeGenderError: No run below the folder has both a best checkpoint and metrics.
    """
    if not given.is_dir() or any((given / name).exists() for name in ("checkpoints", _METRICS)):
        return given
    runs = [run for run in trained_runs(given) if (run / _METRICS).is_file()]
    require(bool(runs), f"run={given} holds no tested run: give a folder with {_METRICS} and checkpoints")
    return runs[-1]


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's best checkpoint and the record of its results.

    Args:
        run: Folder of a tested run; if it has a report, the metrics by age band are included.

    Returns:
        The checkpoint, see `load_checkpoint`, and the record, which JSON can represent.

    Raises:
        AgeGenderError: The run has no best checkpoint or no metrics, or its report is damaged.
    """
    checkpoint = load_checkpoint(find_checkpoint(run))
    metrics_file = run / _METRICS
    require(metrics_file.is_file(), f"run={run} has no {_METRICS}, which is bundled too: give a tested run")
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    tested = any(name.startswith("test/") for name in metrics)
    require(tested, f"run={run} has no test metrics, which are bundled too: give a tested run")
    bands = read_age_bands(run)
    record: dict[str, Any] = {
        "command": " ".join(["python train.py", *_training_overrides(_overrides(run, metrics))]),
        "license": LICENSE,
        "origin": checkpoint["agegender"].get("origin"),
    }
    record |= {name: value for name, value in metrics.items() if name.startswith(_RESULT_PREFIXES) or name in _RESULTS}
    if bands is not None:
        record["bands"] = bands
    return checkpoint, record


def _overrides(run: Path, metrics: dict[str, Any]) -> list[str]:
    """Return the overrides of a run, from its `.hydra` record or, if that is missing, from its metrics."""
    record = run / ".hydra" / "overrides.yaml"
    if not record.is_file():
        return str(metrics["overrides"]).split()
    return [shlex.quote(item) if " " in item else item for item in as_written(OmegaConf.load(record))]


def _training_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides that influence the weights, without folders and settings of the evaluation."""
    return [item for item in overrides if item.lstrip("'+").split("=")[0] not in _OMITTED_OVERRIDES]
