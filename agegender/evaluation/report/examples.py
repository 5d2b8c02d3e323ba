"""The example faces of a test report, each with its labels and the prediction."""

from __future__ import annotations

import math

from agegender.data.decode import UnreadableImageError, read_image
from agegender.evaluation.html.page import Card, Section, face_uri
from agegender.evaluation.report.analysis import RunMetrics
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.metrics import Integers
from agegender.evaluation.statistics.task_values import likeliest
from agegender.tasks.info import TaskInfo


def face_sections(run: RunPredictions, findings: RunMetrics, label: str = "") -> list[Section]:
    """Return a section of cards for the worst predictions of each task, and for random faces; empty ones are left out.

    Args:
        run: The run's predictions.
        findings: Its metrics.
        label: Label of the run.
    """
    uris: dict[str, str] = {}
    rows = {_title(found.task): found.worst for found in findings.tasks.values()}
    rows["Random faces", f"In ascending order of {run.tasks[0].label}."] = findings.random
    return [
        _section(run, f"{title} ({label})" if label else title, text, shown, uris)
        for (title, text), shown in rows.items()
        if len(shown)
    ]


def _title(task: TaskInfo) -> tuple[str, str]:
    if task.kind == "number":
        return f"Largest {task.name} errors", "In descending order."
    return f"Most confident {task.name} errors", "In descending order of confidence."


def _section(run: RunPredictions, title: str, text: str, rows: Integers, uris: dict[str, str]) -> Section:
    cards = [face_card(run, row, uris) for row in rows.tolist()]
    gone = sum(not card.uri for card in cards)
    lines = [text]
    if gone:
        lines.append(f"{gone} of {len(cards)} images are not at the path in predictions.csv (any more).")
    lines.append(
        f"First line: the labels ({', '.join(task.name for task in run.tasks)}). Below: the predictions, a number with "
        "its standard deviation if the model predicts one, a class with its probability."
    )
    short = {each: name for task in run.tasks for name, each in _short_names(task).items() if each != name}
    lines.append("; ".join(f"{each}: {name}" for each, name in short.items()))
    return Section(title, " ".join(lines), faces=(cards,))


def _short_names(task: TaskInfo) -> dict[str, str]:
    """Return a short name of each class: its initial, or its name if two classes have the same initial."""
    initials = [name[:1].upper() for name in task.classes]
    return dict(zip(task.classes, initials if len(set(initials)) == len(initials) else task.classes, strict=True))


def face_card(run: RunPredictions, row: int, uris: dict[str, str]) -> Card:
    """Return the card of one image with its labels and predictions.

    Args:
        run: The run's predictions.
        row: The image.
        uris: Images that are on the page already, by path; the image is added.
    """
    path = run.paths[row]
    if path not in uris:
        try:
            uris[path] = face_uri(read_image(path))
        except UnreadableImageError:
            uris[path] = ""
    labels, predictions = zip(*(_texts(run, task, row) for task in run.tasks), strict=True)
    return Card(uris[path], (f"true {' '.join(labels)}", f"pred. {predictions[0]}", *predictions[1:]), run.names[row])


def _texts(run: RunPredictions, task: TaskInfo, row: int) -> tuple[str, str]:
    """Return the label and the prediction of an image."""
    label = float(run.labels[task.label][row])
    columns = {name: run.columns[name][row : row + 1] for name in task.columns}
    if task.kind == "number":
        decimals, std = task.digits[2] or 0, columns[task.columns[1]][0]
        spread = "" if math.isnan(std) else f" ± {std:.{decimals}f}"
        true, predicted = f"{label:.{decimals}f}", f"{columns[task.columns[0]][0]:.{decimals}f}{spread}"
    else:
        names, ((place,), (probability,)) = [*_short_names(task).values()], likeliest(task, columns)
        true, predicted = "" if math.isnan(label) else names[int(label)], f"{names[place]} {probability:.2f}"
    return "?" if math.isnan(label) else true, predicted
