"""Results of a run: `metrics.json`, the best metrics for the loggers, and a table on the terminal."""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.table import Table

from agegender.config.overrides import as_written
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.split import SPLITS
from agegender.data.index.utkface import GROUPS
from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.system.files import atomic_write, raise_write_errors
from agegender.training.loggers.experiment_trackers import Scalar, log_best
from agegender.training.module import AgeGenderModule
from agegender.version import __version__

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "pillow", "numpy")
_ROWS = {
    "loss": ("loss", "{:.3f}"),
    "age_loss": ("age loss", "{:.3f}"),
    "gender_loss": ("gender loss", "{:.3f}"),
    "age_mae": ("age MAE, years", "{:.2f}"),
    "age_cs5": ("age within 5 years (CS@5)", "{:.1%}"),
    "age_mse": ("age MSE, years squared", "{:.1f}"),
    "age_class_acc": ("age class accuracy", "{:.2%}"),
    "gender_acc": ("gender accuracy", "{:.2%}"),
    "gender_auroc": ("gender AUROC", "{:.4f}"),
}


def write_results(
    path: Path,
    settings: dict[str, Any],
    figures: dict[str, float],
    monitor: str,
    best_epoch: int | None,
    data: AgeGenderDataModule,
    module: AgeGenderModule,
    trainer: pl.Trainer,
    timing: dict[str, float],
) -> dict[str, Any]:
    """Write the final metrics with their provenance as one flat JSON object, and return it.

    `monitor` is the metric that selects the checkpoint, or for an evaluation without validation (`data.split=test`)
    that of the test. `best_epoch` counts from 1 and is None for an evaluation. `val/...` and `test/...` are those of
    the best checkpoint. `baseline/...` are the test metrics of a constant prediction, the training median age and
    majority gender; without training faces, those of the test faces, which is the best possible.
    """
    sizes = {f"images/{name}": len(data.split(name)) for name in ("train", "val", "test")}
    calibration = module.network.calibration
    results = {
        # a metric can be NaN, such as the AUROC of a single gender, and JSON has no NaN
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        **_baseline(data),
        "min_confidence": calibration.min_confidence if calibration else 0.5,
        "best_score": figures[monitor] if math.isfinite(figures[monitor]) else None,
        "monitor": monitor,
        "best_epoch": best_epoch,
        "epochs": trainer.current_epoch if settings["fit"] else 0,
        **timing,
        "data": SYNTHETIC_NOTE if data.synthetic is not None else str(data.index.folder),
        **_table(data),
        **_split(data, module),
        **sizes,
        "images/quarantined": len(data.index.quarantine),
        "parameters": sum(weight.numel() for weight in module.network.parameters()),
        "seed": settings["seed"],
        "overrides": " ".join(as_written(HydraConfig.get().overrides.task)),
        "hardware": _hardware(trainer),
        "precision": trainer.precision,
        "version/agegender": __version__,
        "version/python": platform.python_version(),
        **{f"version/{name}": version(name) for name in _PACKAGES},
    }
    with raise_write_errors("the run's metrics", path), atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=2, allow_nan=False)
        file.write("\n")
    return results


def _split(data: AgeGenderDataModule, module: AgeGenderModule) -> dict[str, Any]:
    """Return the split, and the split of the initial weights, if any."""
    settings = data.split_settings
    return {
        "split": data.index.split_source or settings["split"],
        "split_fingerprint": data.index.fingerprint,
        "duplicates": settings["duplicates"],
        **({"weights_split_fingerprint": module.pretrained_split} if module.pretrained_split else {}),
    }


def _table(data: AgeGenderDataModule) -> dict[str, Any]:
    """Return what is specific to data from a table: its group names, and the numbers of labels if some are missing."""
    entries: dict[str, Any] = {"table": str(data.table)} if data.table else {}
    if data.index.groups != GROUPS:
        entries["groups"] = list(data.index.groups)
    if not data.index.complete:
        for name in SPLITS:
            entries |= {f"images/{name}/with_age": len(data.split(name).known("age"))}
            entries |= {f"images/{name}/with_gender": len(data.split(name).known("gender"))}
    return entries


def _baseline(data: AgeGenderDataModule) -> dict[str, Any]:
    test = data.split("test")
    train = data.split("train") if len(data.split("train")) else test
    baseline: dict[str, Any] = {} if train is not test else {"baseline/from": "the test images themselves"}
    if len(train.known("age")) and len(test.known("age")):
        median = float(np.median(train.known("age")))
        baseline["baseline/age_mae"] = float(np.abs(test.known("age") - median).mean())
    if len(train.known("gender")) and len(test.known("gender")):
        majority = round(float(train.known("gender").mean()))
        baseline["baseline/gender_acc"] = float((test.known("gender") == majority).mean())
    return baseline


def _hardware(trainer: pl.Trainer) -> str:
    several = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + several
    if device.type != "cpu":
        return f"{cpu_name()}, {device.type}{several}"
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {threads} thread{'s' * (threads > 1)}{' each' * bool(several)}{several}"


def cpu_name() -> str:
    """Return the processor's name as reported by the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def hyperparameters(settings: dict[str, Any]) -> dict[str, Scalar]:
    """Return the settings to log, by dotted key."""
    chosen = {key: value for key, value in settings.items() if key not in ("callbacks", "logger", "resume", "weights")}
    return {key: _plain(value) for key, value in flatten_dict(chosen).items()}


def log_results(trainer: pl.Trainer, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Log the best checkpoint's metrics."""
    final = {key: value for key, value in results.items() if key.startswith(("val/", "test/")) and value is not None}
    log_best(trainer.loggers, hyperparameters(settings), final, trainer.global_step)


def flatten_dict(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    if isinstance(node, dict) and node:
        flat: dict[str, Any] = {}
        for key, value in node.items():
            flat |= flatten_dict(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: node}


def _plain(value: Any) -> Scalar:
    return value if isinstance(value, bool | int | float | str) else str(value)


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Print the final table and the run's folder."""
    same = "the best single answer (test)" if "baseline/from" in results else "always the same answer (test)"
    titles = {"val": "validation", "test": "test", "baseline": same}
    stages = [stage for stage in titles if stage != "val" or any(name.startswith("val/") for name in results)]
    table = Table("", *(titles[stage] for stage in stages), title=f"split {results['split_fingerprint']}")
    for name, (label, form) in _ROWS.items():
        cells = [results.get(f"{stage}/{name}") for stage in stages]
        if any(value is not None for value in cells):
            table.add_row(label, *("" if value is None else form.format(value) for value in cells))
    console = Console()
    console.print(table)
    if results["split"] == "random":
        note = "data.split=random: the epoch was chosen on the test images, which may have copies in the training part"
        console.print(note, soft_wrap=True, highlight=False)
    if results["data"] == SYNTHETIC_NOTE:
        console.print(f"trained and tested on {SYNTHETIC_NOTE}", soft_wrap=True, highlight=False)
    console.print(f"results: {folder}", soft_wrap=True, highlight=False)
