"""The plot of a sweep over one numeric setting, such as a learning curve over `data.train_limit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agegender.evaluation.html.plot_style import BLUE, GRAY, new_plot, to_png
from agegender.evaluation.statistics.student import spread_of
from agegender.system.files import atomic_write

_SIZES = {"data.limit": "images (data.limit)", "data.train_limit": "training images (data.train_limit)"}
_LOG_RATIO = 10  # largest to smallest value from which the axis is logarithmic


def write_plot(
    path: Path, key: str, values: Mapping[int, float], jobs: Sequence[Mapping[str, Any]], monitor: str
) -> None:
    """Plot the score over a setting: a dot per job, the line of the means, and their 95 % intervals.

    Args:
        path: The PNG file.
        key: The setting.
        values: Value of the setting by job number.
        jobs: Records of the finished jobs.
        monitor: Name of the score.
    """
    scores: dict[float, list[float]] = {}
    for job in jobs:
        scores.setdefault(values[job["job"]], []).append(job["score"])
    places = sorted(scores)
    spreads = [spread_of(scores[place]) for place in places]
    figure, axes = new_plot()
    repeated = any(spread.jobs > 1 for spread in spreads)
    axes.plot(places, [spread.mean for spread in spreads], color=BLUE, label="mean" if repeated else None)
    for place in places:
        axes.plot([place] * len(scores[place]), scores[place], ".", color=GRAY if repeated else BLUE, zorder=3)
    bars = [(place, spread) for place, spread in zip(places, spreads, strict=True) if spread.low is not None]
    if bars:
        ends = [[spread.mean - (spread.low or 0) for _, spread in bars]] * 2  # symmetric
        means = [spread.mean for _, spread in bars]
        label = "95 % interval of the mean"
        axes.errorbar([place for place, _ in bars], means, ends, fmt="none", ecolor=BLUE, capsize=3, label=label)
        axes.legend(frameon=False)
    if places[0] > 0 and (key in _SIZES or places[-1] / places[0] >= _LOG_RATIO):
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places], rotation=30 if len(places) > 5 else 0)
        axes.minorticks_off()
    axes.set(xlabel=_SIZES.get(key, key), ylabel=monitor)
    with atomic_write(path) as file:
        file.write(to_png(figure))
