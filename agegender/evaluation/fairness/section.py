"""The section of a report about the gaps between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agegender.evaluation.fairness.measure import GroupGap, MetricFairness
from agegender.evaluation.html.metric_format import MetricColumn, format_interval, format_number, metric_column
from agegender.evaluation.html.page import Section, Table
from agegender.evaluation.report.analysis import SMALL_SAMPLE
from agegender.tasks.info import TaskInfo

_INTRODUCTION = (
    "Raw gaps mislead: the groups' ages differ, and errors depend on age. The age-standardized metrics (direct "
    "standardization) give every group the ages of the whole test set. The worst group is the one with the highest "
    "MAE, the lowest CS or accuracy, the bias farthest from 0 or the coverage farthest from 80 %; the gap is the "
    "highest minus the lowest value. An interval holds for all pairs of groups at once: if it contains 0, these images "
    "show no gap."
)
_HEADER = ("", "worst group", "highest", "lowest", "gap", "95 % interval")


def fairness_section(fairness: Mapping[str, Sequence[MetricFairness]], tasks: Sequence[TaskInfo]) -> Section:
    """Return the section.

    Args:
        fairness: By the run's label.
        tasks: The tasks of the runs.
    """
    if not any(fairness.values()):
        return Section("Fairness", f"No label has two groups of at least {SMALL_SAMPLE} images.")
    by_name = {task.name: task for task in tasks}
    lines, tables = [_INTRODUCTION], []
    for run, found in fairness.items():
        for label in dict.fromkeys(each.label for each in found):
            own = [each for each in found if each.label == label]
            rows = [row for each in own for row in _rows(each, by_name[each.task])]
            tables.append(Table(_HEADER, rows, f"{run} by {label}".strip()))
            lines += [line for line in _limits(own) if line not in lines]
    return Section("Fairness", " ".join(lines), tables)


def _rows(found: MetricFairness, task: TaskInfo) -> list[tuple[str, ...]]:
    column = metric_column(task, found.metric)
    rows = [_row(column.title, column, found.raw)]
    if found.standardized is not None:
        rows.append(_row("age-standardized", column, found.standardized))
    return rows


def _row(title: str, column: MetricColumn, gap: GroupGap) -> tuple[str, ...]:
    ends = (f"{name} {format_number(gap.values[name], column.form, column.sign)}" for name in (gap.highest, gap.lowest))
    return title, gap.worst, *ends, *format_interval(gap.gap, column.form)


def _limits(found: Sequence[MetricFairness]) -> list[str]:
    """Return sentences about the groups and ages of one label that are not compared."""
    label, lines = found[0].label, []
    for few in dict.fromkeys(each.left_out for each in found if each.left_out):
        lines.append(f"Not compared by {label}, with fewer than {SMALL_SAMPLE} images: {', '.join(few)}.")
    for bands, covered in dict.fromkeys((each.bands, each.covered) for each in found):
        if not bands:
            lines.append(f"No age band has {SMALL_SAMPLE} images of every {label}: nothing is standardized.")
        elif covered < 1:
            lines.append(
                f"By {label}, the standardized metrics are of the age bands with at least {SMALL_SAMPLE} images of "
                f"every compared group: {', '.join(bands)} ({100 * covered:.1f} % of the images)."
            )
    return lines
