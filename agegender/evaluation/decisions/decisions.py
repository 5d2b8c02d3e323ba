"""Decisions by a run's predictions: error rates at age limits, and selective prediction; computed once per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agegender.evaluation.decisions.selective import Selective, SelectiveMetrics
from agegender.evaluation.decisions.thresholds import Limit, LimitMetrics, age_task
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.bootstrap import percentile_intervals, resample
from agegender.evaluation.statistics.metrics import Floats, weighted_means


@dataclass(frozen=True)
class Decisions:
    """The decision metrics of a run.

    Attributes:
        limits: Metrics of each age limit with test faces on both sides, ascending.
        skipped: Age limits without faces on one side; all of them without a task that predicts the age in years.
        selective: Metrics of selective prediction by task; tasks without a known label or an uncertainty are left out.
    """

    limits: list[LimitMetrics]
    skipped: list[int]
    selective: dict[str, SelectiveMetrics]


def decide(run: RunPredictions, thresholds: Sequence[int], resamples: int, seed: int) -> Decisions:
    """Compute the decision metrics of a run, with bootstrap intervals.

    Args:
        run: The run's predictions, at least one.
        thresholds: Age limits in whole years.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.
    """
    age = age_task(run.tasks)
    given = [Limit(run, age, each) for each in sorted(thresholds)] if age else []
    limits = [limit for limit in given if limit.is_measurable]
    selective = [each for each in (Selective(run, task) for task in run.tasks) if each.is_measurable]
    means = [limit.means() for limit in limits]
    curves = {i: ece for i, limit in enumerate(limits) if (ece := limit.ece())}
    flat = [value for each in means for value in each.values()]
    values, within = (np.stack(side, axis=1) for side in zip(*flat, strict=True)) if flat else (None, None)

    def statistics(weights: Floats) -> Floats:
        found = [np.empty((len(weights), 0))]
        if values is not None and within is not None:
            found.append(weighted_means(weights, values, within))
        found += [ece(weights)[:, None] for ece in curves.values()]
        return np.concatenate([*found, *(each.statistics(weights) for each in selective)], axis=1)

    samples = resample(statistics, run.clusters, resamples, seed)
    estimates = iter(percentile_intervals(statistics(np.ones((1, len(run.names))))[0], samples))
    by_limit = [{key: next(estimates) for key in each} for each in means]
    for i in curves:
        by_limit[i]["ece",] = next(estimates)
    return Decisions(
        limits=[limit.metrics(found) for limit, found in zip(limits, by_limit, strict=True)],
        skipped=[each for each in sorted(thresholds) if each not in [limit.limit for limit in limits]],
        selective={each.task.name: each.metrics(estimates) for each in selective},
    )


def decisions_json(decisions: Decisions) -> dict[str, Any]:
    """Return the metrics of a run for `report.json`: `thresholds`, `thresholds_skipped` and `selective`."""
    selective = {name: asdict(found) for name, found in decisions.selective.items()}
    return {
        "thresholds": [asdict(limit) for limit in decisions.limits],
        "thresholds_skipped": decisions.skipped,
        "selective": {
            name: {key: value for key, value in found.items() if key != "task"} for name, found in selective.items()
        },
    }
