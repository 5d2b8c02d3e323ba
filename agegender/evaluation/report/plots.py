"""The plots of a test report: of one run, or of two runs overlaid or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agegender.evaluation.html.page import Plot
from agegender.evaluation.html.plot_style import BLUE, COLORS, GRAY, ORANGE, new_plot, to_png
from agegender.evaluation.report.analysis import GENDERS, SUBGROUP_TITLES, SUBGROUPS, YEARS, RunMetrics, SubgroupMetrics
from agegender.evaluation.report.curves import Curves, curve_names
from agegender.evaluation.report.run_reader import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.calibration import BINS

# By the run's label: the empty string for a single run, else "A" and "B".
Runs = Mapping[str, RunMetrics]

_SMALL = (3.4, 2.6)  # inches: three in a row of the page
_SQUARE = (4.2, 4.0)


def _finish(axes: Axes, name: str, caption: str, x: str, y: str, *, legend: bool = True) -> Plot:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, framealpha=0.8)
    return Plot(name, caption, to_png(axes.figure.figure))


def _colored(runs: Runs) -> Iterator[tuple[str, str, RunMetrics]]:
    for (label, findings), color in zip(runs.items(), COLORS, strict=False):
        yield label, color, findings


def _diagonal(axes: Axes, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=GRAY, linewidth=1, linestyle="--")


def curve_plots(runs: Mapping[str, Curves], best: Mapping[str, int | None], titles: Mapping[str, str]) -> list[Plot]:
    """Draw each metric that was logged in both training and validation, by epoch.

    Args:
        runs: Curves of each run, by label.
        best: Epoch selected by validation, from 1; None draws no mark.
        titles: Display names of metrics; others keep the name they were logged under.
    """
    plots = []
    for name in curve_names(list(runs.values())):
        _, axes = new_plot(*_SMALL)
        for place, (label, curves) in enumerate(runs.items()):
            single = len(runs) == 1
            training = (BLUE, "-") if single else (COLORS[place], "--")
            validation = (ORANGE, "-") if single else (COLORS[place], "-")
            _curve(axes, curves.get(f"train/{name}", {}), *training, f"{label} training".strip())
            _curve(axes, curves.get(f"val/{name}", {}), *validation, f"{label} validation".strip())
            if epoch := best.get(label):
                axes.axvline(epoch, color=GRAY if single else COLORS[place], linewidth=1, linestyle=":")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        title = titles.get(name, name)
        plots.append(_finish(axes, f"curve_{name.replace('/', '_')}", f"{title}, by epoch", "epoch", title))
    return plots


def _curve(axes: Axes, points: Mapping[int, float], color: str, style: str, label: str) -> None:
    if points:
        marker = "o" if len(points) == 1 else ""  # a line through a single epoch would be invisible
        axes.plot(list(points), list(points.values()), style, color=color, marker=marker, label=label)


def age_plot(answers: RunPredictions, bands: list[SubgroupMetrics], label: str = "") -> Plot:
    """Draw predicted against true age, with the mean prediction of each age band; requires a known age."""
    _, axes = new_plot(*_SQUARE)
    age, age_pred = answers.age[answers.has_age], answers.age_pred[answers.has_age]
    top = max(100.0, float(age.max()))
    low, high = -0.1 * top, 1.3 * top  # a single outlier would compress all other points
    drawn = np.clip(age_pred, low, high)
    outside = int(((age_pred < low) | (age_pred > high)).sum())
    _diagonal(axes, 0, top)
    axes.plot(age, drawn, ".", color=BLUE, alpha=0.25, markersize=4, markeredgewidth=0)
    ages = np.array([part.mean_age for part in bands])
    means = np.clip(ages + [part.age_bias for part in bands], low, high)
    axes.plot(ages, means, "o-", color=ORANGE, markersize=4, label="mean of an age band")
    caption = _captioned("Predicted against true age; perfect predictions lie on the diagonal", label)
    if outside:
        caption += f". {outside} outside the plot, drawn at its edge"
    return _finish(axes, _named("age_true_vs_predicted", label), caption, "true age, years", "predicted age, years")


def _named(name: str, label: str) -> str:
    return f"{name}_{label.lower()}" if label else name


def _captioned(caption: str, label: str) -> str:
    return f"{label}: {caption}" if label else caption


def cumulative_score_plot(runs: Runs) -> Plot:
    """Draw the CS@k curves; requires a known age in every run."""
    _, axes = new_plot()
    for label, color, findings in _colored(runs):
        score = findings.headline["age_cs5"].value
        legend = f"{label} CS@5 {100 * score:.1f} %".strip()
        axes.plot(YEARS, findings.cumulative_score, "-", color=color, label=legend)
        axes.plot([5], [score], "o", color=color, markersize=5)
    axes.set_ylim(0, 1.02)
    axes.set_xticks(range(0, YEARS[-1] + 1, 5))
    caption = "Fraction of ages within k years of the truth (CS@k)"
    return _finish(axes, "cumulative_score", caption, "k, years", "fraction of images")


def slice_plots(runs: Runs, kind: str) -> list[Plot]:
    """Draw the age MAE and the gender accuracy of each slice of the test images, with intervals.

    Args:
        runs: Metrics of each run, by label.
        kind: One of `PARTS`.
    """
    age, gender = (_slice_axes(runs, kind, pick) for pick in (lambda part: part.age_mae, lambda part: part.gender_acc))
    age.set_ylim(bottom=0)  # a cut axis makes small differences look large
    gender.set_ylim(min(0.5, gender.get_ylim()[0]), 1.0)
    by, with_intervals = SUBGROUP_TITLES[kind], "with 95 % intervals"
    return [
        _finish(age, f"age_mae_by_{kind}", f"Age MAE by {by}, {with_intervals}", by, "age MAE, years"),
        _finish(gender, f"gender_acc_by_{kind}", f"Gender accuracy by {by}, {with_intervals}", by, "gender accuracy"),
    ]


def _slice_axes(runs: Runs, kind: str, pick: Callable[[SubgroupMetrics], Estimate]) -> Axes:
    present = [part.name for findings in runs.values() for part in findings.slices[kind]]
    names = [name for name in dict.fromkeys([*SUBGROUPS[kind], *present]) if name in present]
    _, axes = new_plot(5.2 if kind == "age" else max(3.9, 0.6 * len(names)), 3.2)
    for place, (label, color, findings) in enumerate(_colored(runs)):
        parts = findings.slices[kind]
        x = [names.index(part.name) + 0.25 * (place - (len(runs) - 1) / 2) for part in parts]
        found = [pick(part) for part in parts]
        # Not `errorbar`: a percentile interval from few resamples need not contain the value itself.
        axes.vlines(x, [one.low for one in found], [one.high for one in found], color=color)
        axes.plot(x, [one.value for one in found], "o", color=color, markersize=5, label=label or None)
    axes.set_xticks(range(len(names)), names, parse_math=False)  # group names of a table may hold "$"
    axes.set_xlim(-0.6, len(names) - 0.4)
    return axes


def roc_plot(runs: Runs) -> Plot:
    """Draw the ROC curves of "female"; requires at least one run that has one."""
    _, axes = new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    for label, color, findings in _colored(runs):
        if findings.roc is not None:
            area = findings.headline["gender_auroc"].value
            axes.plot(
                findings.roc.false_female,
                findings.roc.true_female,
                color=color,
                label=f"{label} AUROC {area:.4f}".strip(),
            )
            axes.plot(*([rate] for rate in findings.roc.at_threshold), "o", color=color, markersize=6)
    caption = "Gender ROC; the dot marks the threshold of 0.5"
    return _finish(
        axes, "gender_roc", caption, "male faces predicted female (FPR)", "female faces predicted female (TPR)"
    )


def confusion_plot(findings: RunMetrics, label: str = "") -> Plot:
    """Draw the confusion matrix of gender; requires a known gender."""
    _, axes = new_plot(*_SQUARE)
    fractions = findings.confusion / np.maximum(findings.confusion.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    for (true, predicted), count in np.ndenumerate(findings.confusion):
        fraction = float(fractions[true, predicted])
        color = "white" if fraction > 0.6 else "black"
        text = f"{count:,}\n{100 * fraction:.1f} %"
        axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=13)
    axes.set_xticks([0, 1], GENDERS)
    axes.set_yticks([0, 1], GENDERS)
    caption = _captioned("Gender confusion: counts, and percentages of the true gender", label)
    return _finish(axes, _named("gender_confusion", label), caption, "prediction", "label")


def reliability_plot(runs: Runs) -> Plot:
    """Draw the fraction of female faces against the mean `p_female` of each bin, above the bins' counts.

    Requires a known gender in every run.
    """
    _, axes = new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    for place, (label, color, findings) in enumerate(_colored(runs)):
        bins, width = findings.reliability, 1 / BINS / len(runs)
        heights = 0.25 * bins.images / bins.images.max()
        axes.bar(bins.low + place * width, heights, width, align="edge", color=color, alpha=0.2)
        filled = bins.images > 0
        legend = f"{label} ECE {findings.headline['gender_ece'].value:.3f}".strip()
        axes.plot(bins.p_female[filled], bins.female[filled], "o-", color=color, markersize=4, label=legend)
    caption = "Reliability of p_female, on the diagonal if well calibrated; bars: distribution of the images"
    return _finish(axes, "reliability", caption, "mean p_female of a bin", "fraction of female faces in it")


def coverage_plot(runs: Runs) -> Plot:
    """Draw observed against nominal coverage of the age intervals; requires a run with `spread`."""
    _, axes = new_plot(*_SQUARE)
    _diagonal(axes, 0, 1)
    for label, color, findings in _colored(runs):
        if findings.spread is not None:
            spread = findings.spread
            axes.plot(spread.nominal, spread.observed, "o-", color=color, markersize=4, label=label or None)
    caption = "Coverage of the age intervals; above the diagonal they are too wide, below too narrow"
    return _finish(axes, "age_coverage", caption, "nominal coverage", "fraction of true ages inside")


def spread_plot(runs: Runs) -> Plot:
    """Draw the error against the predicted standard deviation; requires a run with `spread`."""
    _, axes = new_plot(*_SQUARE)
    top = 1.0
    for label, color, findings in _colored(runs):
        if findings.spread is not None:
            spread = findings.spread
            axes.plot(spread.bin_std, spread.bin_rmse, "o", color=color, markersize=5, label=label or None)
            top = max(top, float(spread.bin_std.max()), float(spread.bin_rmse.max()))
    _diagonal(axes, 0, top)
    caption = "Error against predicted spread, in bins of about equal counts; on the diagonal if well calibrated"
    return _finish(axes, "age_spread", caption, "predicted standard deviation, years", "RMSE, years")
