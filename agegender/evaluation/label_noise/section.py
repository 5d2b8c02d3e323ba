"""The section of a report about label noise, and the bounds that its plots show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agegender.evaluation.html.metric_format import format_number, metric_column
from agegender.evaluation.html.page import Section, Table
from agegender.evaluation.label_noise.measure import LabelNoise
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.tasks.info import TaskInfo

_TITLE = "Label noise"
_UNKNOWN = "Label noise is not measured: no copies of a photograph with labels of their own are known (index.csv)."


def noise_by_task(runs: Iterable[RunPredictions], tasks: Sequence[TaskInfo]) -> dict[str, LabelNoise]:
    """Return the label noise of each task, from the run that knows most copies with its label."""
    found: dict[str, LabelNoise] = {}
    for run in runs:
        for task in tasks:
            noise = run.label_noise.get(task.label)
            if noise is not None and (task.name not in found or found[task.name].images < noise.images):
                found[task.name] = noise
    return found


def score_of(task: TaskInfo) -> str:
    """Return the name of the metric that label noise bounds."""
    return "mae" if task.kind == "number" else "acc"


def floors(noise: dict[str, LabelNoise], tasks: Sequence[TaskInfo]) -> dict[str, float]:
    """Return the score of the best single prediction per photograph by `<task>_<metric>`, for the plots."""
    return {f"{task.name}_{score_of(task)}": noise[task.name].best_constant for task in tasks if task.name in noise}


def noise_section(noise: dict[str, LabelNoise], tasks: Sequence[TaskInfo]) -> Section:
    """Return the section; a sentence gives the reason if there are no copies with labels."""
    if not noise:
        return Section(_TITLE, _UNKNOWN)
    rows = []
    for task in tasks:
        if (found := noise.get(task.name)) is not None:
            column = metric_column(task, score_of(task))
            scores = (format_number(score, column.form) for score in (found.best_constant, found.other_copy))
            rows.append((column.title, *scores, f"{found.images:,}", f"{found.photographs:,}"))
    text = (
        "Copies of one photograph have labels of their own, in all of the run's data. No model that predicts the same "
        "for all copies of a photograph scores better on them than the best single prediction (their median, or their "
        "most frequent class). Another copy's label as the prediction shows how far two labelings agree. Both hold for "
        "other faces as far as their labels are as noisy."
    )
    header = ("", "best single prediction", "another copy's label", "files", "photographs")
    return Section(_TITLE, text, [Table(header, rows)])
