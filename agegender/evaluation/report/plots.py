"""The plots of a test report: of one run, or of two runs overlaid or side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agegender.evaluation.html.metric_format import capitalize, metric_column, probability_titles, with_unit
from agegender.evaluation.html.page import Plot
from agegender.evaluation.html.plot_style import BLUE, COLORS, GRAY, ORANGE, new_plot, to_png
from agegender.evaluation.report.analysis import RunMetrics
from agegender.evaluation.report.comparison import LABELS
from agegender.evaluation.report.curves import Curves, curve_titles
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics, TaskMetrics
from agegender.evaluation.statistics.calibration import BINS
from agegender.evaluation.statistics.metrics import AGE, AGE_BANDS, Floats, age_bands, cumulative_score
from agegender.tasks.info import TaskInfo

# By the run's label: the empty string for a single run, else one of `LABELS`.
Runs = Mapping[str, RunMetrics]
Numbers = Mapping[str, NumberMetrics]
Classes = Mapping[str, ClassMetrics]

_SMALL = (3.4, 2.6)  # inches: three in a row of the page
_SQUARE = (4.2, 4.0)
_NOISE: dict[str, Any] = {"color": GRAY, "linewidth": 1, "linestyle": "-."}
_AT_TOLERANCE = 5  # position of the task's tolerance among the limits of its cumulative score


def _finish(axes: Axes, name: str, caption: str, x: str, y: str, *, legend: bool = True) -> Plot:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, framealpha=0.8)
    return Plot(name, caption, to_png(axes.figure.figure))


def _color(label: str) -> str:
    """Return the color of the run with this label."""
    return COLORS[LABELS.index(label)] if label else BLUE


def _task_of(runs: Mapping[str, TaskMetrics]) -> TaskInfo:
    return next(iter(runs.values())).task


def _diagonal(axes: Axes, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=GRAY, linewidth=1, linestyle="--")


def curve_plots(
    runs: Mapping[str, Curves],
    best: Mapping[str, int | None],
    tasks: Sequence[TaskInfo],
    bounds: Mapping[str, float] | None = None,
) -> list[Plot]:
    """Draw each metric that was logged in both training and validation, by epoch.

    Args:
        runs: Curves of each run, by label.
        best: Epoch selected by validation, from 1; None draws no mark.
        tasks: The tasks of the runs, for the metrics' display names.
        bounds: Scores that label noise allows by `<task>_<metric>`, each drawn as a horizontal line.
    """
    plots = []
    for name, title in curve_titles(list(runs.values()), tasks).items():
        _, axes = new_plot(*_SMALL)
        for label, curves in runs.items():
            single = len(runs) == 1
            training = (BLUE, "-") if single else (_color(label), "--")
            validation = (ORANGE, "-") if single else (_color(label), "-")
            _curve(axes, curves.get(f"train/{name}", {}), *training, f"{label} training".strip())
            _curve(axes, curves.get(f"val/{name}", {}), *validation, f"{label} validation".strip())
            if epoch := best.get(label):
                axes.axvline(epoch, color=GRAY if single else _color(label), linewidth=1, linestyle=":")
        if (bound := (bounds or {}).get(name)) is not None:
            axes.axhline(bound, **_NOISE, label="label noise")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # of a single epoch: one tick
        plots.append(_finish(axes, f"curve_{name.replace('/', '_')}", f"{title}, by epoch", "epoch", title))
    return plots


def _curve(axes: Axes, points: Mapping[int, float], color: str, style: str, label: str) -> None:
    if points:
        marker = "o" if len(points) == 1 else ""  # a line through a single epoch would be invisible
        axes.plot(list(points), list(points.values()), style, color=color, marker=marker, label=label)


def scatter_plot(run: RunPredictions, task: TaskInfo, label: str = "") -> Plot:
    """Draw predictions against true values, with the mean prediction of each age band; requires a known label.

    For a label other than the age, the bands are tenths of the images.
    """
    _, axes = new_plot(*_SQUARE)
    known = run.known(task)
    true, predicted = run.labels[task.label][known], run.columns[task.columns[0]][known]
    bottom, top = (0.0, max(100.0, float(true.max()))) if task.label == AGE else (float(true.min()), float(true.max()))
    size = (top - bottom) or 1.0
    low, high = bottom - 0.1 * size, top + 0.3 * size  # a single outlier would compress all other points
    drawn = np.clip(predicted, low, high)
    outside = int(((predicted < low) | (predicted > high)).sum())
    _diagonal(axes, bottom, top)
    axes.plot(true, drawn, ".", color=BLUE, alpha=0.25, markersize=4, markeredgewidth=0)
    bands = age_bands(true) if task.label == AGE else np.digitize(true, np.quantile(true, np.arange(1, 10) / 10))
    means = np.array([(true[bands == band].mean(), predicted[bands == band].mean()) for band in np.unique(bands)])
    legend = f"mean of {'an age band' if task.label == AGE else 'a tenth of the images'}"
    axes.plot(means[:, 0], np.clip(means[:, 1], low, high), "o-", color=ORANGE, markersize=4, label=legend)
    caption = _captioned(f"Predicted against true {task.name}; perfect predictions lie on the diagonal", label)
    if outside:
        caption += f". {outside} outside the plot, drawn at its edge"
    x, y = (with_unit(f"{which} {task.name}", task) for which in ("true", "predicted"))
    return _finish(axes, _named(f"{task.name}_true_vs_predicted", label), caption, x, y)


def _named(name: str, label: str) -> str:
    return f"{name}_{label.lower()}" if label else name


def _captioned(caption: str, label: str) -> str:
    return f"{label}: {caption}" if label else caption


def cumulative_score_plot(runs: Numbers, noise: Floats | None = None) -> Plot:
    """Draw the CS@k curves; requires a tolerance in every run.

    Args:
        runs: Metrics of the task, by the run's label.
        noise: Errors of the median label of each copied photograph, drawn as a further curve; None for no curve.
    """
    task, (_, axes) = _task_of(runs), new_plot()
    for label, found in runs.items():
        limit, score = found.limits[_AT_TOLERANCE], found.cumulative_score[_AT_TOLERANCE]
        legend = f"{label} CS@{limit:g} {100 * score:.1f} %".strip()
        axes.plot(found.limits, found.cumulative_score, "-", color=_color(label), label=legend)
        axes.plot([limit], [score], "o", color=_color(label), markersize=5)
    if noise is not None:
        limits = next(iter(runs.values())).limits
        axes.plot(limits, cumulative_score(noise, limits), **_NOISE, label="median label of copies")
    axes.set_ylim(0, 1.02)
    axes.set_xticks(next(iter(runs.values())).limits[::_AT_TOLERANCE])
    caption = f"Fraction of {task.name} predictions within k {task.unit}".rstrip() + " of the truth (CS@k)"
    return _finish(axes, f"{task.name}_cumulative_score", caption, with_unit("k", task), "fraction of images")


def slice_title(label: str) -> str:
    """Return what the slices of a label are."""
    return "age band" if label == AGE else label


def slice_plots(runs: Runs, tasks: Sequence[TaskInfo], label: str) -> list[Plot]:
    """Draw the MAE or the accuracy of each task by slice of the test images, with intervals.

    Args:
        runs: Metrics of each run, by label.
        tasks: The tasks.
        label: Label that the slices are made by.
    """
    plots = []
    for task in tasks:
        number, by = task.kind == "number", slice_title(label)
        metric = "mae" if number else "acc"
        axes = _slice_axes(runs, label, f"{task.name}_{metric}")
        if number:
            axes.set_ylim(bottom=0)  # a cut axis makes small differences look large
        else:
            axes.set_ylim(min(0.5, axes.get_ylim()[0]), 1.0)
        title = metric_column(task, metric).title.removesuffix(", %")
        caption = f"{capitalize(title.partition(',')[0])} by {by}, with 95 % intervals"
        plots.append(_finish(axes, f"{task.name}_{metric}_by_{label}", caption, by, title))
    return plots


def _slice_axes(runs: Runs, label: str, metric: str) -> Axes:
    parts = {run: findings.slices.get(label, []) for run, findings in runs.items()}
    present = dict.fromkeys(part.name for each in parts.values() for part in each)
    names = [name for name in AGE_BANDS if name in present] if label == AGE else list(present)
    _, axes = new_plot(5.2 if label == AGE else max(3.9, 0.6 * len(names)), 3.2)
    for place, (run, each) in enumerate(parts.items()):
        shown = [part for part in each if metric in part.metrics]
        if not shown:
            continue
        x = [names.index(part.name) + 0.25 * (place - (len(runs) - 1) / 2) for part in shown]
        found = [part.metrics[metric] for part in shown]
        # Not `errorbar`: a percentile interval from few resamples need not contain the value itself.
        axes.vlines(x, [one.low for one in found], [one.high for one in found], color=_color(run))
        axes.plot(x, [one.value for one in found], "o", color=_color(run), markersize=5, label=run or None)
    axes.set_xticks(range(len(names)), names, parse_math=False)  # class names of a table may hold "$"
    axes.set_xlim(-0.6, len(names) - 0.4)
    return axes


def roc_plot(runs: Classes) -> Plot:
    """Draw the ROC curves of the second of two classes; requires at least one run that has one."""
    task, (_, axes) = _task_of(runs), new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    for label, found in runs.items():
        if found.roc is not None:
            legend = f"{label} AUROC {found.metrics['auroc'].value:.4f}".strip()
            axes.plot(found.roc.false_positive, found.roc.true_positive, color=_color(label), label=legend)
            axes.plot(*([rate] for rate in found.roc.at_threshold), "o", color=_color(label), markersize=6)
    x, y = (f"{name} faces predicted {task.classes[1]}" for name in task.classes)
    caption = f"{capitalize(task.name)} ROC; the dot marks the threshold of 0.5"
    return _finish(axes, f"{task.name}_roc", caption, f"{x} (FPR)", f"{y} (TPR)")


def confusion_plot(found: ClassMetrics, label: str = "") -> Plot:
    """Draw the confusion matrix of classes; requires a known label."""
    task, count = found.task, len(found.task.classes)
    _, axes = new_plot(*(max(size, 0.85 * count + extra) for size, extra in zip(_SQUARE, (1.2, 1.0), strict=True)))
    fractions = found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    for (true, predicted), images in np.ndenumerate(found.confusion):
        fraction = float(fractions[true, predicted])
        color = "white" if fraction > 0.6 else "black"
        text = f"{images:,}\n{100 * fraction:.1f} %"
        axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=13 if count < 4 else 9)
    axes.set_xticks(range(count), task.classes, parse_math=False)
    axes.set_yticks(range(count), task.classes, parse_math=False)
    caption = _captioned(f"{capitalize(task.name)} confusion: counts, and percentages of the true {task.name}", label)
    return _finish(axes, _named(f"{task.name}_confusion", label), caption, "prediction", "label")


def reliability_plot(runs: Classes) -> Plot:
    """Draw the observed fraction of an event against its mean probability in each bin, above the bins' counts."""
    task, (_, axes) = _task_of(runs), new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    probability, event = probability_titles(task)
    for place, (label, found) in enumerate(runs.items()):
        bins, width = found.reliability, 1 / BINS / len(runs)
        heights = 0.25 * bins.images / bins.images.max()
        axes.bar(bins.low + place * width, heights, width, align="edge", color=_color(label), alpha=0.2)
        filled = bins.images > 0
        legend = f"{label} ECE {found.metrics['ece'].value:.3f}".strip()
        axes.plot(
            bins.probability[filled], bins.observed[filled], "o-", color=_color(label), markersize=4, label=legend
        )
    caption = f"Reliability of {probability}, on the diagonal if well calibrated; bars: distribution of the images"
    name = f"{task.name}_reliability"
    return _finish(axes, name, caption, f"mean {probability} of a bin", f"fraction {event} in it")


def coverage_plot(runs: Numbers) -> Plot:
    """Draw observed against nominal coverage of a number's intervals; requires a run with `spread`."""
    task, (_, axes) = _task_of(runs), new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    for label, found in runs.items():
        if found.spread is not None:
            line = found.spread.nominal, found.spread.observed
            axes.plot(*line, "o-", color=_color(label), markersize=4, label=label or None)
    caption = f"Coverage of the {task.name} intervals; above the diagonal they are too wide, below too narrow"
    name = f"{task.name}_coverage"
    return _finish(axes, name, caption, "nominal coverage", "fraction of true labels inside")


def spread_plot(runs: Numbers) -> Plot:
    """Draw the error against the predicted standard deviation; requires a run with `spread`."""
    task, (_, axes) = _task_of(runs), new_plot(*_SQUARE)
    top = 1.0 if task.label == AGE else 0.0
    for label, found in runs.items():
        if found.spread is not None:
            points = found.spread.bin_std, found.spread.bin_rmse
            axes.plot(*points, "o", color=_color(label), markersize=5, label=label or None)
            top = max(top, *(float(side.max()) for side in points))
    _diagonal(axes, 0, top or 1.0)
    caption = "Error against predicted spread, in bins of about equal counts; on the diagonal if well calibrated"
    x, y = with_unit("predicted standard deviation", task), with_unit("RMSE", task)
    return _finish(axes, f"{task.name}_spread", caption, x, y)
