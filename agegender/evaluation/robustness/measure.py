"""Predictions and metrics of a network on corrupted faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agegender.data.augmentation.corruptions import CORRUPTIONS, corrupt
from agegender.evaluation.report.analysis import to_json
from agegender.evaluation.robustness.rebuilt_run import RebuiltRun
from agegender.evaluation.robustness.results_file import CLEAN, MEAN
from agegender.evaluation.statistics.bootstrap import Estimate, percentile_intervals, resample
from agegender.evaluation.statistics.metrics import Floats, weighted_means
from agegender.evaluation.statistics.task_values import Values, task_values
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.system.progress import track

CONDITIONS = (CLEAN, *CORRUPTIONS)
MAIN = ("mae", "acc")  # metrics whose change against the clean faces is measured

Predictions = dict[str, Floats]  # `[faces]` by the tasks' columns


@torch.inference_mode()
def predict_all(run: RebuiltRun, batch_size: int) -> dict[str, Predictions]:
    """Predict every face unchanged and under each corruption.

    A batch is decoded once and passed through the network once per condition.

    Args:
        run: Network and faces.
        batch_size: Faces per forward pass.

    Returns:
        For each of `CONDITIONS` the tasks' columns, each `[faces]` in the order of the faces; NaN where the network
        predicts no interval.
    """
    device, count = run.network.device, len(run.faces)
    columns = [column for task in run.network.tasks for column in task.columns]
    found = {condition: np.empty((len(columns), count)) for condition in CONDITIONS}
    starts = range(0, count, batch_size)
    for start in track(starts, "predicting", len(starts)):
        part = slice(start, min(start + batch_size, count))
        batch = run.faces.__getitems__(range(part.start, part.stop))
        images = batch["image"].to(device)
        for condition in CONDITIONS:
            changed = images if condition == CLEAN else corrupt(images, condition, batch["row"])
            predicted = _predict(run.network, changed.contiguous(memory_format=torch.channels_last))
            found[condition][:, part] = torch.stack([predicted[column] for column in columns]).double().cpu().numpy()
    return {condition: dict(zip(columns, values, strict=True)) for condition, values in found.items()}


def _predict(backend: TorchBackend, images: torch.Tensor) -> dict[str, torch.Tensor]:
    network = backend.network
    return network.predict(network.forward_tta(images) if backend.tta == "flip" else network(images))


def measure(run: RebuiltRun, predictions: dict[str, Predictions], resamples: int, seed: int) -> dict[str, Any]:
    """Compute all metrics with their intervals.

    Args:
        run: Source of the labels.
        predictions: See `predict_all`.
        resamples: Number of cluster bootstrap resamples. A resample draws the same photographs for all conditions, so
            changes are paired.
        seed: Random seed of the resamples.

    Returns:
        `images` and `photographs` (counts), `tasks` (their descriptions), `known` (number of known labels by task),
        `metrics` (their names by task), and `conditions`: for each of `CONDITIONS`, and for `mean` over the
        corruptions, each metric by `<task>_<metric>` as `value`, `low` and `high`; likewise the change of each of
        `MAIN` against the clean faces (None for the clean faces themselves) by `<task>_<metric>_change`. A metric
        without any face is None. All in plain types, as stored in `robustness.json`.
    """
    by_condition = {condition: _values(run, found) for condition, found in predictions.items()}
    columns = [column for found in by_condition.values() for column in found.values()]
    values, within = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    measured = list(by_condition[CLEAN])
    changed = [place for place, (_, metric) in enumerate(measured) if metric in MAIN]

    def statistics(weights: Floats) -> Floats:
        means = weighted_means(weights, values, within).reshape(len(weights), len(CONDITIONS), len(measured))
        return _with_changes(means, changed).reshape(len(weights), -1)

    samples = resample(statistics, run.clusters, resamples, seed)
    found = iter(percentile_intervals(statistics(np.ones((1, len(values))))[0], samples))
    names = [f"{task}_{metric}" for task, metric in measured]
    changes = [f"{names[place]}_change" for place in changed]
    conditions = {condition: {name: _plain(next(found)) for name in (*names, *changes)} for condition in _ALL}
    conditions[CLEAN] |= dict.fromkeys(changes)
    tasks, index = run.network.tasks, run.faces.index
    return {
        "images": len(values),
        "photographs": int(run.clusters.max()) + 1,
        "tasks": [task.to_dict() for task in tasks],
        "known": {task.name: int(np.isfinite(index.labels[task.label][run.faces.rows]).sum()) for task in tasks},
        "metrics": {task.name: [metric for name, metric in measured if name == task.name] for task in tasks},
        "conditions": conditions,
    }


_ALL = (*CONDITIONS, MEAN)


def _values(run: RebuiltRun, predictions: Predictions) -> dict[tuple[str, str], Values]:
    """Return the values of the faces whose means are the metrics, by task and metric."""
    labels = {label: each[run.faces.rows].astype(np.float64) for label, each in run.faces.index.labels.items()}
    return {
        (task.name, metric): values
        for task in run.network.tasks
        for metric, values in task_values(task, labels, predictions, run.tolerances.get(task.name)).items()
        if not metric.endswith(("_whole", "answered"))
    }


def _with_changes(means: Floats, changed: Sequence[int]) -> Floats:
    """Append the mean over the corruptions as a condition, and the changes against the clean faces as metrics.

    Args:
        means: `[resamples, conditions, metrics]`, the clean faces first.
        changed: Positions of the metrics whose changes are appended.

    Returns:
        `[resamples, conditions + 1, metrics + changed]`.
    """
    all_means = np.concatenate([means, means[:, 1:].mean(1, keepdims=True)], axis=1)
    return np.concatenate([all_means, (all_means - all_means[:, :1])[..., changed]], axis=2)


def _plain(found: Estimate) -> dict[str, float] | None:
    return to_json(found) if np.isfinite(found.value) else None
