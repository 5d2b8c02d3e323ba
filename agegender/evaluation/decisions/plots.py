"""The plots of decisions: who passes an age limit, challenge ages, reliability of P(age >= T), risk and coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from agegender.evaluation.decisions.selective import SelectiveMetrics
from agegender.evaluation.decisions.thresholds import LimitMetrics
from agegender.evaluation.html.metric_format import capitalize
from agegender.evaluation.html.page import Plot
from agegender.evaluation.html.plot_style import COLORS, GRAY, new_plot, to_png
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.tasks.info import TaskInfo

_SIZE = (5.2, 3.8)


def _finish(axes: Axes, name: str, caption: str, label: str, x: str, y: str) -> Plot:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(fontsize=7, framealpha=0.8)
    named, captioned = (f"{name}_{label.lower()}", f"{label}: {caption}") if label else (name, caption)
    return Plot(named, captioned, to_png(axes.figure.figure))


def _colored(limits: Sequence[LimitMetrics]) -> list[tuple[LimitMetrics, tuple[float, ...]]]:
    """Return the limits with a color each, from dark to light by their age."""
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(limits)))
    return [(limit, tuple(shade)) for limit, shade in zip(limits, shades.tolist(), strict=True)]


def passes_plot(limits: Sequence[LimitMetrics], label: str = "") -> Plot:
    """Draw the fraction that passes each limit by true age; requires at least one limit."""
    _, axes = new_plot(*_SIZE)
    for limit, color in _colored(limits):
        points = [each for each in limit.ages if np.isfinite(each.passed.value)]
        ages, passed = [each.age for each in points], [100 * each.passed.value for each in points]
        axes.plot(ages, passed, "o-", color=color, markersize=3, label=f"limit {limit.limit}")
        axes.axvline(limit.limit - 0.5, color=color, linewidth=0.8, linestyle=":")
    axes.set_ylim(-2, 102)
    caption = "Faces predicted at least as old as a limit, by true age; left of its dotted line nobody should pass"
    return _finish(axes, "age_thresholds", caption, label, "true age, years", "pass, %")


def challenge_plot(limits: Sequence[LimitMetrics], label: str = "") -> Plot:
    """Draw both error rates of each limit by challenge age, with 95 % intervals; requires at least one limit."""
    _, axes = new_plot(*_SIZE)
    for limit, color in _colored(limits):
        passed = [rates.passed for rates in limit.challenges.values()]
        refused = [rates.refused for rates in limit.challenges.values()]
        _band(axes, list(limit.challenges), passed, color, "-", f"limit {limit.limit}")
        _band(axes, list(limit.challenges), refused, color, "--", None)
    axes.set_ylim(bottom=0)
    caption = (
        "Challenge ages: faces under the limit who pass (solid), and faces of the limit or more who are turned away "
        "(dashed)"
    )
    return _finish(axes, "age_challenges", caption, label, "predicted age required, years", "of the faces, %")


def _band(
    axes: Axes, x: Sequence[int], found: Sequence[Estimate], color: tuple[float, ...], style: str, label: str | None
) -> None:
    axes.plot(x, [100 * one.value for one in found], style, color=color, label=label, linewidth=1.2)
    axes.fill_between(
        x, [100 * one.low for one in found], [100 * one.high for one in found], color=color, alpha=0.12, linewidth=0
    )


def probability_plot(limits: Sequence[LimitMetrics], label: str = "") -> Plot:
    """Draw the reliability of P(age >= T) of each limit that has one; requires at least one."""
    _, axes = new_plot(*_SIZE)
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle="--")
    for limit, color in _colored(limits):
        if limit.reliability is not None and limit.ece is not None:
            filled = limit.reliability.images > 0
            line = limit.reliability.probability[filled], limit.reliability.observed[filled]
            axes.plot(*line, "o-", color=color, markersize=3, label=f"T = {limit.limit}, ECE {limit.ece.value:.3f}")
    caption = "Reliability of P(age >= T) in ten bins, on the diagonal if well calibrated"
    return _finish(axes, "age_threshold_reliability", caption, label, "mean P(age >= T)", "fraction of at least T")


def risk_coverage_plot(task: TaskInfo, runs: Mapping[str, SelectiveMetrics]) -> Plot:
    """Draw the risk over the fraction that is answered, of each run; requires at least one.

    Args:
        task: The task.
        runs: Its metrics by the run's label.
    """
    _, axes = new_plot(*_SIZE)
    number = task.kind == "number"
    risk = f"{task.name} MAE" if number else f"{task.name} error, %"
    for (label, found), color in zip(runs.items(), COLORS, strict=False):
        curve, area = (found.curve, found.aurc.value) if number else (100 * found.curve, 100 * found.aurc.value)
        axes.plot(np.arange(1, 101), curve, color=color, label=f"{label} AURC {area:.2f}".strip())
        axes.axhline(curve[-1], color=color, linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    how = "the narrowest intervals" if number else "the highest probabilities"
    caption = capitalize(f"{risk.removesuffix(', %')} of the faces with {how}; dotted: of all faces")
    title = f"{risk}, {task.unit}" if number and task.unit else risk
    return _finish(axes, f"{task.name}_risk_coverage", caption, "", "faces answered, %", title)
