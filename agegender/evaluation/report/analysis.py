"""All metrics of one run, computed once for both the report's page and `report.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics, class_metrics, number_metrics
from agegender.evaluation.statistics.bootstrap import Estimate, percentile_intervals, resample
from agegender.evaluation.statistics.calibration import weighted_ece
from agegender.evaluation.statistics.metrics import (
    AGE,
    AGE_BANDS,
    Floats,
    Integers,
    age_bands,
    weighted_auroc,
    weighted_means,
)
from agegender.evaluation.statistics.task_values import Values, calibration_pair, is_subgroup_metric, task_values

SMALL_SAMPLE = 20  # images; below this count, an interval is unreliable


@dataclass(frozen=True)
class SubgroupMetrics:
    """The metrics of one slice of the test images: an age band, or a class of a label.

    Attributes:
        name: Name of the band or the class.
        images: Number of images.
        known: Number of images whose label is known, by task; its metrics are computed from these.
        metrics: Estimates by `<task>_<metric>`: `mae`, `bias`, `cs<k>` and `coverage` of numbers, `acc` of classes.
    """

    name: str
    images: int
    known: dict[str, int]
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class RunMetrics:
    """The metrics of one run.

    Attributes:
        images: Number of test images.
        clusters: Number of distinct photographs, the unit of resampling.
        tasks: Metrics by task.
        slices: By the label that they are made by; slices without an image are left out.
        random: Rows `[k]` of randomly chosen images, in ascending order of the first task's label.
        samples: `[resamples]`, each metric by `<task>_<metric>` in each resample.
    """

    images: int
    clusters: int
    tasks: dict[str, NumberMetrics | ClassMetrics]
    slices: dict[str, list[SubgroupMetrics]]
    random: Integers
    samples: dict[str, Floats]

    @property
    def headline(self) -> dict[str, Estimate]:
        """The headline metrics of all tasks by `<task>_<metric>`, in order."""
        return {
            f"{name}_{metric}": found for name, task in self.tasks.items() for metric, found in task.headline.items()
        }


def analyze(run: RunPredictions, resamples: int, faces: int, seed: int) -> RunMetrics:
    """Compute all metrics of a run, with bootstrap intervals.

    Args:
        run: The run's predictions, at least one.
        resamples: Number of bootstrap resamples.
        faces: Maximum number of images in each row of examples.
        seed: Random seed of the resamples and of the random examples.
    """
    parts = _parts(run)
    estimates, samples = _estimate(run, parts, resamples, seed)
    tasks: dict[str, NumberMetrics | ClassMetrics] = {}
    for task in run.tasks:
        of_kind = number_metrics if task.kind == "number" else class_metrics
        tasks[task.name] = of_kind(run, task, estimates[_ALL][task.name], faces)
    slices: dict[str, list[SubgroupMetrics]] = {label: [] for label, _ in parts if label}
    for (label, name), part in parts.items():
        if label:
            known = {task.name: int((part & run.known(task)).sum()) for task in run.tasks}
            metrics = {
                f"{task}_{each}": one for task, found in estimates[label, name].items() for each, one in found.items()
            }
            slices[label].append(SubgroupMetrics(name, int(part.sum()), known, metrics))
    drawn = np.random.default_rng(seed).permutation(len(run.names))[:faces]
    by_label = np.argsort(run.labels[run.tasks[0].label][drawn], kind="stable")
    return RunMetrics(len(run.names), int(run.clusters.max()) + 1, tasks, slices, drawn[by_label], samples)


_Part = tuple[str, str]  # label and name of a slice of the images
_ALL = ("", "")  # all images


def _parts(run: RunPredictions) -> dict[_Part, NDArray[np.bool_]]:
    """Return a mask `[n]` of all images, and of those of each slice; slices without an image are left out."""
    parts = {_ALL: np.ones(len(run.names), dtype=bool)}
    for label, values in run.labels.items():
        places, names = values, run.classes.get(label, ())
        if label == AGE and not names:
            places, names = np.where(np.isnan(values), np.nan, age_bands(values)), AGE_BANDS
        parts |= {(label, name): places == i for i, name in enumerate(names) if (places == i).any()}
    return parts


def _estimate(
    run: RunPredictions, parts: dict[_Part, NDArray[np.bool_]], resamples: int, seed: int
) -> tuple[dict[_Part, dict[str, dict[str, Estimate]]], dict[str, Floats]]:
    """Return the estimates of each part by task and metric, and the samples `[resamples]` of those of all images."""
    means: dict[tuple[_Part, str, str], Values] = {}
    for task in run.tasks:
        tolerance = run.tolerances.get(task.name)
        for metric, (value, counted) in task_values(task, run.labels, run.columns, tolerance).items():
            for part, mask in parts.items():
                if part == _ALL or is_subgroup_metric(metric):
                    means[part, task.name, metric] = value, counted & mask
    # All means over images are computed in one matrix product; see `weighted_means`.
    values, within = (np.stack(side, axis=1) for side in zip(*means.values(), strict=True))
    others = _not_means(run)

    def statistics(weights: Floats) -> Floats:
        means = weighted_means(weights, values, within)
        return np.column_stack([means, *(statistic(weights) for statistic in others.values())])

    samples = resample(statistics, run.clusters, resamples, seed)
    found = percentile_intervals(statistics(np.ones((1, len(run.names))))[0], samples)
    estimates: dict[_Part, dict[str, dict[str, Estimate]]] = {
        part: {task.name: {} for task in run.tasks} for part in parts
    }
    names = [*means, *((_ALL, *name) for name in others)]
    for (part, name, metric), estimate in zip(names, found, strict=True):
        estimates[part][name][metric] = estimate
    columns = zip(names, samples.T, strict=True)
    return estimates, {f"{name}_{metric}": column for (part, name, metric), column in columns if part == _ALL}


def _not_means(run: RunPredictions) -> dict[tuple[str, str], Callable[[Floats], Floats]]:
    """Return the metrics that are no means over images, by task and metric, as functions of the weights `[b, n]`."""
    found: dict[tuple[str, str], Callable[[Floats], Floats]] = {}
    for task in run.tasks:
        if task.kind != "number":
            pair = calibration_pair(task, run.labels, run.columns)
            statistics = {"auroc": weighted_auroc} if task.kind == "binary" else {}
            for metric, statistic in (statistics | {"ece": weighted_ece}).items():
                found[task.name, metric] = partial(_on_known, statistic, run.known(task), *pair)
    return found


def _on_known(
    statistic: Callable[[Floats, Floats, Floats], Floats],
    known: NDArray[np.bool_],
    probability: Floats,
    outcome: Floats,
    weights: Floats,
) -> Floats:
    return statistic(weights[:, known], probability[known], outcome[known])


def paired_difference(first: RunMetrics, second: RunMetrics) -> dict[str, Estimate]:
    """Return second minus first of each headline metric of both; they must have the same images, clusters and seed."""
    before, after = first.headline, second.headline
    names = [name for name in before if name in after]
    values = [after[name].value - before[name].value for name in names]
    samples = [second.samples[name] - first.samples[name] for name in names]
    found = percentile_intervals(np.array(values), np.stack(samples, axis=1)) if names else []
    return dict(zip(names, found, strict=True))


def to_json(value: Any) -> Any:
    """Convert findings to plain types for JSON; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
