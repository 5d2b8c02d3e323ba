"""Presentation of a robustness evaluation: a table, two plots, a page, and a section of the test report.

Everything is made from the plain values of `robustness.json`, so that a report can show an earlier evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.table import Table as TerminalTable

from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.evaluation.html.data_notes import data_notes
from agegender.evaluation.html.metric_format import MetricColumn, capitalize, metric_column
from agegender.evaluation.html.overview import task_words
from agegender.evaluation.html.page import Page, Plot, Section, Table
from agegender.evaluation.html.plot_style import BLUE, GRAY, new_plot, to_png
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.robustness.results_file import CLEAN, MEAN, robustness_command
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.task_values import COVERAGE, GROWN
from agegender.system.terminal import console
from agegender.tasks.info import TaskInfo, read_tasks

ABOUT = {
    "noise": "Gaussian noise, the same in all channels; the number is its standard deviation in gray levels of 255",
    "noise_rgb": "Gaussian noise, independent in each channel",
    "blur": "Gaussian blur, standard deviation 1.5 pixels",
    "sharpen": "unsharp mask: adds 1.5 times the detail that a Gaussian blur of 1 pixel removes",
    "resolution_40": "downscaled to 40 pixels a side and upscaled again",
    "jpeg": "JPEG compression at this quality",
    "gray": "converted to gray",
    "dark": "brightness times 0.6",
    "bright": "brightness times 1.4, clipped at white",
    "shift": "shifted by 6 pixels along both axes",
    "turn": "rotated by 10 degrees",
    "squeeze": "squeezed to an aspect ratio of 4:3, in width or in height",
}


def _columns(numbers: Mapping[str, Any], terminal: bool = False) -> list[MetricColumn]:
    """Return the columns of the table; the coverage of the intervals comes last.

    Args:
        numbers: Contents of `robustness.json`.
        terminal: Whether only the columns that fit a terminal are taken, under shorter names: without intervals but
            that of the MAE's increase, and for more than two tasks only their main metrics.
    """
    columns: list[MetricColumn] = []
    last: list[MetricColumn] = []
    tasks = read_tasks(numbers["tasks"])
    for task, metric in [(each, metric) for each in tasks for metric in numbers["metrics"][each.name]]:
        main = metric in ("mae", "acc")
        column, change = metric_column(task, metric, interval=main or metric == "coverage"), "more than clean"
        if terminal:
            short = {"mae": f"{task.name} MAE", "acc": task.name, "acc_from_5": f"{GROWN}+", "coverage": "held"}
            title, change = short.get(metric, metric.replace("cs", "CS@")), "more"
            column = replace(column, title=title, interval=False)
        if main or not terminal or len(tasks) <= 2:
            (last if metric == "coverage" else columns).append(column)
        if main:
            interval = not terminal or (metric == "mae" and len(tasks) <= 2)
            columns.append(replace(column, name=f"{column.name}_change", title=change, sign="+", interval=interval))
    return columns + last


def _table(numbers: Mapping[str, Any], columns: Sequence[MetricColumn], caption: str = "") -> Table:
    """Return a table with a row per condition; the mean over the corruptions comes last."""
    rows = [
        [_row_name(condition), *(cell for column in columns for cell in column.cells(_estimates(found)))]
        for condition, found in numbers["conditions"].items()
    ]
    return Table(["faces", *(title for column in columns for title in column.header)], rows, caption)


def _row_name(condition: str) -> str:
    return "mean of the changes" if condition == MEAN else condition


def _estimates(found: Mapping[str, Mapping[str, float] | None]) -> dict[str, Estimate]:
    return {name: Estimate(**value) for name, value in found.items() if value is not None}


def print_table(numbers: Mapping[str, Any]) -> None:
    """Print the main columns with a legend."""
    title = f"{numbers['run']}: {numbers['images']:,} {_faces(numbers)} under harmless changes"
    shown = _table(numbers, _columns(numbers, terminal=True))
    table = TerminalTable(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for place, name in enumerate(shown.header):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in shown.rows:
        table.add_row(*row)
    screen = console()
    (screen if screen.is_terminal else console(width=120)).print(table)
    tasks = read_tasks(numbers["tasks"])
    units = "".join(f"{task.name} in {task.unit}; " for task in tasks if task.unit)
    others = f" (of all faces, and of ages {GROWN}+), CS and coverage (held)" if len(tasks) <= 2 else ""
    print(capitalize(f"{units}accuracy{others} in %."))


def _faces(numbers: Mapping[str, Any]) -> str:
    return "validation faces" if numbers["split"] == "val" else "test faces"


def build_robustness_page(numbers: Mapping[str, Any]) -> Page:
    """Return the page of a robustness evaluation.

    Args:
        numbers: Contents of `robustness.json`.
    """
    facts = [
        ("run", numbers["run"]),
        ("checkpoint", numbers["checkpoint"]),
        ("data", numbers["data"]),
        ("split", numbers["split_fingerprint"]),
        (_faces(numbers), f"{numbers['images']:,}, of {numbers['photographs']:,} photographs"),
        ("predictions", "mean over a face and its mirror image" if numbers["tta"] == "flip" else "one pass per face"),
        ("made by", numbers["command"]),
    ]
    changes = Section(
        "The changes",
        "Common corruptions that leave the labels equally visible to people, after Hendrycks and Dietterich, "
        "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019. Lengths are for "
        "images of 128 pixels a side. The noise and the direction of a face's change depend on its row in the index "
        "only.",
        tables=[Table(("change", "what it does"), list(ABOUT.items()))],
    )
    notes = list(numbers["warnings"])
    if numbers["data"] == SYNTHETIC_NOTE:
        notes += data_notes(drawn=True, table=None)
    return Page(
        f"Robustness of {numbers['run']}",
        facts,
        [_figures(numbers), Section("Plots", plots=robustness_plots(numbers)), changes],
        notes,
        _sentence(numbers),
    )


def _sentence(numbers: Mapping[str, Any]) -> str:
    """Return the main metrics of the unchanged faces, and the means over the changes."""
    parts = []
    for name, condition in (("Unchanged faces", CLEAN), ("mean of the changes", MEAN)):
        estimates = _estimates(numbers["conditions"].get(condition, {}))
        found = []
        for task in read_tasks(numbers["tasks"]):
            metric = "mae" if task.kind == "number" else "acc"
            if f"{task.name}_{metric}" in estimates:
                found.append((task, {"": {metric: estimates[f"{task.name}_{metric}"]}}))
        if found:
            parts.append(f"{name}: {task_words(found)}")
    return f"{'. '.join(map(capitalize, parts))}." if parts else ""


def _figures(numbers: Mapping[str, Any]) -> Section:
    text = (
        f"Intervals come from {numbers['resamples']:,} bootstrap resamples of the faces. Changes against the "
        "clean faces are paired: both are computed on the same resamples. "
    )
    if numbers["copies_known"]:
        text += "Copies of one photograph are drawn together. "
    text += (
        "Bias is the mean of predicted minus true value. CS@k is the fraction of values within k of the truth. The "
        "predicted intervals should contain 80 % of the true values."
    )
    if numbers["grayscale"]:
        text += " The network takes gray images: gray changes nothing, and noise_rgb is the same as noise."
    return Section("Metrics", text, tables=[_table(numbers, _columns(numbers))])


def robustness_plots(numbers: Mapping[str, Any]) -> list[Plot]:
    """Draw each task's main change and the coverage of its intervals by corruption; missing metrics are left out."""
    return [
        plot
        for task in read_tasks(numbers["tasks"])
        for metric in numbers["metrics"][task.name]
        if metric in ("mae", "acc", "coverage") and (plot := _plot(numbers, task, metric))
    ]


def _plot(numbers: Mapping[str, Any], task: TaskInfo, metric: str) -> Plot | None:
    """Draw the coverage of each condition, or the change of another metric against the clean faces."""
    covered = metric == "coverage"
    name = f"{task.name}_{metric}" if covered else f"{task.name}_{metric}_change"
    estimates = {_row_name(condition): _estimates(found) for condition, found in numbers["conditions"].items()}
    counted = {condition: found[name] for condition, found in estimates.items() if name in found}
    if not counted:
        return None
    column = metric_column(task, metric)
    title, factor = column.title, column.form[0]
    figure, axes = new_plot(5.2, 1.0 + 0.24 * len(counted))
    positions: Sequence[int] = range(len(counted))
    low, value, high = ([factor * getattr(each, end) for each in counted.values()] for end in ("low", "value", "high"))
    axes.axvline(factor * COVERAGE if covered else 0.0, color=GRAY, linewidth=1, linestyle="--")
    axes.hlines(positions, low, high, color=BLUE)
    axes.plot(value, positions, "o", color=BLUE, markersize=5)
    axes.set_yticks(positions, list(counted))
    axes.invert_yaxis()
    axes.set_xlabel(title if covered else f"{title}: more than clean")
    caption = f"Change of {title} against the clean faces"
    if covered:
        caption = f"Fraction of true {task.name} labels inside the 80 % intervals; the line is at {COVERAGE:.0%}"
    return Plot(f"robustness_{name}", f"{caption}, with 95 % intervals", to_png(figure))


def robustness_section(runs: Mapping[str, Run]) -> Section:
    """Return a report's section on robustness: the tables of evaluated runs, and the command for the others.

    Args:
        runs: By label.
    """
    lines, tables = [], []
    for label, run in runs.items():
        name, numbers = f"Run {label}" if label else "This run", run.robustness
        if numbers is None:
            command = robustness_command(str(run.folder))
            lines.append(f"{name} was not measured under harmless changes of its images; {command} measures it.")
            continue
        lines.append(
            f"{name}: {numbers['images']:,} test faces under harmless changes, measured by {numbers['command']}; its "
            "page describes the changes."
        )
        lines += numbers["warnings"]
        tables.append(_table(numbers, _columns(numbers), label))
    return Section("Robustness", " ".join(lines), tables)
