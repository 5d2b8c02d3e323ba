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
from rich.table import Table

from agegender.config.overrides import as_written
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.protocol import protocol_of
from agegender.data.index.split import SPLITS
from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.system.files import atomic_write, raise_write_errors
from agegender.system.terminal import console
from agegender.training.loggers.experiment_trackers import Scalar, log_best
from agegender.training.module import AgeGenderModule
from agegender.version import __version__

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "pillow", "numpy")


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
    the best checkpoint. `baseline/...` are the test metrics of the constant prediction that is best for the training
    faces (see `Task.baseline`); without training faces, for the test faces, which is the best possible. `tasks`
    describes the tasks, and `classes` names the classes of the labels, for the report.
    """
    sizes = {f"images/{name}": len(data.split(name)) for name in ("train", "val", "test")}
    results = {
        # a metric can be NaN, such as the AUROC of a single gender, and JSON has no NaN
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        **_baseline(data, module),
        "best_score": figures[monitor] if math.isfinite(figures[monitor]) else None,
        "monitor": monitor,
        "best_epoch": best_epoch,
        "epochs": trainer.current_epoch if settings["fit"] else 0,
        **timing,
        "data": SYNTHETIC_NOTE if data.synthetic is not None else str(data.index.folder),
        **_labels(data, module),
        "tasks": [info.to_dict() for info in module.network.infos],
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
    """Return the split with its protocol, and the split of the initial weights, if any."""
    settings = data.split_settings
    return {
        "split": data.index.split_source or settings["split"],
        "split_fingerprint": data.index.fingerprint,
        **protocol_of(settings, data.index.split_source, data.index.leak).results(),
        "duplicates": settings["duplicates"],
        **({"weights_split_fingerprint": module.pretrained_split} if module.pretrained_split else {}),
    }


def _labels(data: AgeGenderDataModule, module: AgeGenderModule) -> dict[str, Any]:
    """Return the table, the names of the classes, and for tasks with missing labels the numbers of labels."""
    entries: dict[str, Any] = {"table": str(data.table)} if data.table else {}
    entries["classes"] = {label: list(names) for label, names in data.index.classes.items()}
    for label in dict.fromkeys(task.label for _, task in module.network.each_task()):
        known = {name: len(data.split(name).known(label)) for name in SPLITS}
        if any(count < len(data.split(name)) for name, count in known.items()):
            entries |= {f"images/{name}/with_{label}": count for name, count in known.items()}
    return entries


def _baseline(data: AgeGenderDataModule, module: AgeGenderModule) -> dict[str, Any]:
    test = data.split("test")
    train = data.split("train") if len(data.split("train")) else test
    baseline: dict[str, Any] = {} if train is not test else {"baseline/from": "the test images themselves"}
    for name, task in module.network.each_task():
        known = [split.known(task.label).astype(np.float64) for split in (train, test)]
        if all(map(len, known)):
            baseline |= {f"baseline/{name}_{key}": value for key, value in task.baseline(*known).items()}
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


def print_results(results: dict[str, Any], module: AgeGenderModule, folder: Path) -> None:
    """Print the final table and the run's folder."""
    same = "best constant prediction (test)" if "baseline/from" in results else "constant prediction (test)"
    titles = {"val": "validation", "test": "test", "baseline": same}
    stages = [stage for stage in titles if stage != "val" or any(name.startswith("val/") for name in results)]
    table = Table("", *(titles[stage] for stage in stages), title=f"split {results['split_fingerprint']}")
    tasks = module.network.each_task()
    rows = {"loss": ("loss", "{:.3f}")} | {f"{name}_loss": (f"{name} loss", "{:.3f}") for name, _ in tasks}
    for name, task in tasks:
        rows |= {f"{name}_{key}": (metric.title, metric.form) for key, metric in task.metrics().items()}
    for name, (label, form) in rows.items():
        cells = [results.get(f"{stage}/{name}") for stage in stages]
        if any(value is not None for value in cells):
            table.add_row(label, *("" if value is None else form.format(value) for value in cells))
    screen = console()
    screen.print(table)
    if results["split"] == "random":
        note = "data.split=random: the epoch was chosen on the test images, which may have copies in the training part"
        screen.print(note, soft_wrap=True)
    if results["data"] == SYNTHETIC_NOTE:
        screen.print(f"trained and tested on {SYNTHETIC_NOTE}", soft_wrap=True)
    screen.print(f"results: {folder}", soft_wrap=True)
