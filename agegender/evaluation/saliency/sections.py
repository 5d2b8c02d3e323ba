"""Sections of a test report that show what the network looked at in its worst cases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import UnreadableImageError, eval_transform, read_image
from agegender.evaluation.html.page import Card, Section, face_uri
from agegender.evaluation.report.analysis import RunMetrics
from agegender.evaluation.report.examples import face_card
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.saliency.occlusion import occlusion_map
from agegender.evaluation.statistics.metrics import Floats
from agegender.evaluation.statistics.task_values import likeliest
from agegender.tasks.info import TaskInfo

if TYPE_CHECKING:
    from agegender.prediction.backends.torch_backend import TorchBackend

_SIDE = 112  # pixels of a map on the page
_HOT = np.array([230.0, 20.0, 0.0])  # color of the strongest effect


def saliency_sections(runs: Mapping[str, Run], findings: Mapping[str, RunMetrics]) -> list[Section]:
    """Return a section for each run and task with the maps of its worst predictions.

    Args:
        runs: Runs whose checkpoints are there, by label.
        findings: Their metrics, by label.

    Raises:
        AgeGenderError: A run's checkpoint is missing or damaged.
    """
    # imports torch, which a report without maps doesn't need
    from agegender.evaluation.robustness.rebuilt_run import find_origin
    from agegender.prediction.backends.torch_backend import TorchBackend

    made = []
    for label, run in runs.items():
        origin = find_origin(str(run.folder))
        network = TorchBackend(origin.checkpoint, tta=origin.tta)
        for found in findings[label].tasks.values():
            if len(found.worst):
                made.append(_section(run, found.task, found.worst.tolist(), network, label))
    return made


def _section(run: Run, task: TaskInfo, rows: list[int], network: TorchBackend, label: str) -> Section:
    begun = time.monotonic()
    uris: dict[str, str] = {}
    pairs = [(face_card(run.predictions, row, uris), _map_card(run, task, row, network)) for row in rows]
    shown = [(face, mapped) for face, mapped in pairs if mapped is not None]
    what = f"the predicted {task.name} changes" if task.kind == "number" else "the predicted class loses probability"
    text = (
        f"Red: where a gray patch of a fifth of the side changes the prediction most. Below each map: by how much "
        f"{what} at most. Occlusion maps (Zeiler and Fergus 2014), made in {time.monotonic() - begun:.0f} seconds."
    )
    title = f"What the {task.name} errors depend on"
    return Section(f"{title} ({label})" if label else title, text, faces=shown)


def _map_card(run: Run, task: TaskInfo, row: int, network: TorchBackend) -> Card | None:
    """Return the map of one image as a card; None if the image can't be read."""
    try:
        image = read_image(run.predictions.paths[row])
    except UnreadableImageError:
        return None
    pixels = eval_transform(image, network.image_size, network.grayscale).copy()  # writable, for PyTorch
    before = network(pixels[np.newaxis])

    def effect(images: NDArray[np.uint8]) -> Floats:
        return prediction_change(task, before, network(images))

    values = occlusion_map(pixels, effect)
    if task.kind == "number":
        most = f"up to {values.max():.{task.digits[0] or 0}f}{f' {task.unit}' if task.unit else ''}"
    else:
        most = f"up to {values.max():.2f}"
    return Card(face_uri(heat_image(pixels, values), _SIDE), (most,), run.predictions.names[row])


def prediction_change(task: TaskInfo, before: Mapping[str, Floats], after: Mapping[str, Floats]) -> Floats:
    """Return by how much the predictions `[n]` of a task differ from one image's: at least 0.

    Args:
        task: The task.
        before: Columns `[1]` of the image's prediction.
        after: Columns `[n]` of the covered images' predictions.

    Returns:
        The absolute change of a number; the loss of probability of the class that was predicted.
    """
    if task.kind == "number":
        column = task.columns[0]
        return np.abs(after[column] - before[column])
    places, probabilities = likeliest(task, before)
    return np.maximum(0.0, probabilities - _probability(task, after, int(places[0])))


def _probability(task: TaskInfo, columns: Mapping[str, Floats], place: int) -> Floats:
    if task.kind == "binary":
        second = columns[task.columns[0]]
        return second if place == 1 else 1 - second
    return columns[task.columns[place]]


def heat_image(pixels: NDArray[np.uint8], values: Floats) -> Image.Image:
    """Return the image in gray, red where the values are high.

    Args:
        pixels: `[size, size, channels]`.
        values: `[size, size]`, at least 0; the largest is drawn in full color.
    """
    gray = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    alpha = 0.8 * (values / max(float(values.max()), 1e-9))[..., np.newaxis]
    return Image.fromarray((gray * (1 - alpha) + _HOT * alpha).round().astype(np.uint8))
