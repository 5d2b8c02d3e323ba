"""The gaps of each metric between the groups of each label, raw and age-standardized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.report.analysis import SMALL_SAMPLE
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate, resample
from agegender.evaluation.statistics.gaps import largest_gap, standardize
from agegender.evaluation.statistics.metrics import AGE, AGE_BANDS, Floats, Integers, age_bands, weighted_means
from agegender.evaluation.statistics.task_values import COVERAGE, is_subgroup_metric, task_values

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupGap:
    """The largest difference of a metric between groups.

    Attributes:
        values: The metric by group.
        worst: Group with the highest MAE, the lowest CS or accuracy, the bias farthest from 0, or the coverage of
            intervals farthest from the nominal one.
        highest: Group with the highest value.
        lowest: Group with the lowest value.
        gap: Highest minus lowest value, with a simultaneous interval; see `largest_gap`.
    """

    values: dict[str, float]
    worst: str
    highest: str
    lowest: str
    gap: Estimate


@dataclass(frozen=True)
class MetricFairness:
    """A metric's gap between the groups of a label.

    Attributes:
        task: Name of the task.
        metric: Name of the metric; see `task_values`.
        label: Label that the groups are classes of.
        left_out: Groups with fewer than `SMALL_SAMPLE` images, which are not compared.
        raw: Over all images of the compared groups.
        standardized: Over `bands`, each weighted by its images in the whole test set; None without such a band.
        bands: Age bands in which every compared group has at least `SMALL_SAMPLE` images.
        covered: Fraction of the test images in `bands`; of those whose age is known and that count in this metric.
    """

    task: str
    metric: str
    label: str
    left_out: tuple[str, ...]
    raw: GroupGap
    standardized: GroupGap | None
    bands: tuple[str, ...]
    covered: float


@dataclass(frozen=True)
class _Cells:
    """The images of one metric by group of a label and by age band.

    Attributes:
        task: Name of the task.
        metric: Name of the metric.
        label: The label.
        values: `[n]`, the metric's value of each image.
        counted: `[n]`, whether an image counts.
        group: `[n]`, position of each image's group; -1 where unknown.
        band: `[n]`, position of each image's age band; -1 where unknown.
        names: Names of the groups.
    """

    task: str
    metric: str
    label: str
    values: Floats
    counted: Mask
    group: Integers
    band: Integers
    names: Sequence[str]

    @cached_property
    def faces(self) -> Integers:
        """`[groups, bands]`, number of images."""
        counts = np.zeros((len(self.names), len(AGE_BANDS)), dtype=np.int64)
        placed = self.counted & (self.group >= 0) & (self.band >= 0)
        np.add.at(counts, (self.group[placed], self.band[placed]), 1)
        return counts

    @cached_property
    def groups(self) -> list[int]:
        """Positions of the groups with enough images to be compared."""
        images = [int((self.counted & (self.group == i)).sum()) for i in range(len(self.names))]
        return [i for i, count in enumerate(images) if count >= SMALL_SAMPLE]

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """Names of the groups with some images, but too few to be compared."""
        few = (i for i in range(len(self.names)) if i not in self.groups and (self.counted & (self.group == i)).any())
        return tuple(self.names[i] for i in few)

    @cached_property
    def bands(self) -> list[int]:
        """Positions of the age bands in which every compared group has enough images."""
        return np.flatnonzero((self.faces[self.groups] >= SMALL_SAMPLE).all(0)).tolist()

    @cached_property
    def standard(self) -> Floats:
        """`[bands]`, number of images of the whole test set in each age band."""
        known = self.counted & (self.band >= 0)
        return np.bincount(self.band[known], minlength=len(AGE_BANDS)).astype(np.float64)

    def masks(self) -> list[Mask]:
        """Return the images of each compared group, then those of each in each of `bands`."""
        groups = [self.counted & (self.group == i) for i in self.groups]
        return groups + [each & (self.band == band) for each in groups for band in self.bands]

    def metrics(self, means: Floats) -> Floats:
        """Return the raw metric of each compared group, then the standardized one if there is any of `bands`.

        Args:
            means: `[b, masks]`.

        Returns:
            `[b, groups]` or `[b, 2 * groups]`.
        """
        count = len(self.groups)
        if not self.bands:
            return means
        by_band = means[:, count:].reshape(len(means), count, len(self.bands))
        return np.hstack([means[:, :count], standardize(by_band, self.standard[self.bands])])

    def found(self, values: Floats, samples: Floats) -> MetricFairness:
        """Return the gaps, from `metrics` of the images `[m]` and of the resamples `[resamples, m]`."""
        count = len(self.groups)
        raw, equal = slice(0, count), slice(count, None)
        return MetricFairness(
            *(self.task, self.metric, self.label, self.left_out),
            raw=self._gap(values[raw], samples[:, raw]),
            standardized=self._gap(values[equal], samples[:, equal]) if self.bands else None,
            bands=tuple(AGE_BANDS[band] for band in self.bands),
            covered=float(self.standard[self.bands].sum() / max(self.standard.sum(), 1)),
        )

    def _gap(self, values: Floats, samples: Floats) -> GroupGap:
        names = [self.names[i] for i in self.groups]
        gap, worst = largest_gap(values, samples), int(_badness(self.metric, values).argmax())
        by_name = dict(zip(names, values.tolist(), strict=True))
        return GroupGap(by_name, names[worst], names[gap.highest], names[gap.lowest], gap.difference)


def _badness(metric: str, values: Floats) -> Floats:
    if metric in ("bias", "coverage"):
        return np.abs(values - (COVERAGE if metric == "coverage" else 0.0))
    return values if metric == "mae" else -values


def measure_fairness(run: RunPredictions, resamples: int, seed: int) -> list[MetricFairness]:
    """Compute the gap of each metric between the groups of each label that has classes.

    Args:
        run: The run's predictions.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.

    Returns:
        By label, then by metric; without the metrics that fewer than two groups have enough images for.
    """
    cells = [each for each in _all_cells(run) if len(each.groups) > 1]
    if not cells:
        return []
    masks = [each.masks() for each in cells]
    values = np.column_stack([each.values for each, own in zip(cells, masks, strict=True) for _ in own])
    within = np.column_stack([mask for own in masks for mask in own])
    ends = np.cumsum([len(own) for own in masks])[:-1]

    def metrics(weights: Floats) -> list[Floats]:
        means = np.split(weighted_means(weights, values, within), ends, axis=1)
        return [each.metrics(own) for each, own in zip(cells, means, strict=True)]

    samples = resample(lambda weights: np.hstack(metrics(weights)), run.clusters, resamples, seed)
    found = metrics(np.ones((1, len(run.names))))
    sampled = np.split(samples, np.cumsum([own.shape[1] for own in found])[:-1], axis=1)
    return [each.found(own[0], drawn) for each, own, drawn in zip(cells, found, sampled, strict=True)]


def _all_cells(run: RunPredictions) -> list[_Cells]:
    ages = run.labels.get(AGE, np.full(len(run.names), np.nan))
    band = np.where(np.isnan(ages), -1, age_bands(ages))
    metrics = [
        (task.name, metric, *found)
        for task in run.tasks
        for metric, found in task_values(task, run.labels, run.columns, run.tolerances.get(task.name)).items()
        if is_subgroup_metric(metric)
    ]
    grouped = {label: names for label, names in run.classes.items() if label in run.labels and label != AGE}
    return [
        _Cells(task, metric, label, values, counted, _positions(run.labels[label]), band, names)
        for label, names in grouped.items()
        for task, metric, values, counted in metrics
    ]


def _positions(codes: Floats) -> Integers:
    return np.where(np.isnan(codes), -1, codes).astype(np.int64)
