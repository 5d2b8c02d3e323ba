"""Selective prediction of a task: its error over the images that are answered, the most certain ones first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.metrics import Floats
from agegender.evaluation.statistics.risk_coverage import risk_coverage
from agegender.evaluation.statistics.task_values import COVERAGE, likeliest
from agegender.tasks.info import NUMBER_COLUMNS, TaskInfo

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)  # fractions of the images with an interval of the risk
_CURVE = np.arange(1, 101) / 100


@dataclass(frozen=True)
class SelectiveMetrics:
    """The risk of a task over the fraction of images that is answered.

    Attributes:
        task: The task.
        images: Number of images with a known label and an uncertainty.
        aurc: Area under the risk-coverage curve; in the unit of the risk.
        coverage: `[k]`, fractions that are answered.
        risk: `[k]`, mean absolute error of a number, fraction of wrong classes.
        limit: `[k]`, the least certain answer: width of the interval, or probability of the predicted class.
        curve: `[100]`, the risk at 1 %, 2 %, ..., 100 % of the images.
    """

    task: TaskInfo
    images: int
    aurc: Estimate
    coverage: tuple[float, ...]
    risk: list[Estimate]
    limit: list[float]
    curve: Floats


class Selective:
    """The uncertainties and losses of a task on the images of a run."""

    def __init__(self, run: RunPredictions, task: TaskInfo):
        """Take a number's uncertainty from the width of its 80 % interval, a class's from its probability."""
        label = run.labels[task.label]
        if task.kind == "number":
            value, std, low, high = (run.columns[name] for name in task.columns[:NUMBER_COLUMNS])
            # Without an interval, that of a normal distribution with the predicted standard deviation.
            normal = 2 * NormalDist().inv_cdf((1 + COVERAGE) / 2) * std
            uncertainty, losses = np.where(np.isnan(low), normal, high - low), np.abs(value - label)
        else:
            predicted, confidence = likeliest(task, run.columns)
            uncertainty, losses = -confidence, (predicted != label).astype(np.float64)
        self._rows = np.flatnonzero(run.known(task) & np.isfinite(uncertainty))
        self.task, self._uncertainty, self._losses = task, uncertainty[self._rows], losses[self._rows]

    @property
    def is_measurable(self) -> bool:
        """Whether any image has a known label and an uncertainty."""
        return len(self._rows) > 0

    def statistics(self, weights: Floats) -> Floats:
        """Return the area, and the risks at `COVERAGES`, `[b, 1 + k]`, for weights `[b, n]` of the run's images."""
        risks, area = risk_coverage(weights[:, self._rows], self._uncertainty, self._losses, COVERAGES)
        return np.column_stack([area, risks])

    def metrics(self, estimates: Iterator[Estimate]) -> SelectiveMetrics:
        """Return the metrics from the estimates of `statistics`, in its order."""
        images = len(self._rows)
        ranked, sign = np.sort(self._uncertainty), 1 if self.task.kind == "number" else -1
        last = [max(0, int(np.ceil(fraction * images - 1e-9)) - 1) for fraction in COVERAGES]
        (curve,), _ = risk_coverage(np.ones((1, images)), self._uncertainty, self._losses, _CURVE)
        return SelectiveMetrics(
            task=self.task,
            images=images,
            aurc=next(estimates),
            coverage=COVERAGES,
            risk=[next(estimates) for _ in COVERAGES],
            limit=[float(sign * ranked[place]) for place in last],
            curve=curve,
        )
