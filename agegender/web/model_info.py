"""Information about a model for the page: tasks, samples, the meaning of the predictions, and metrics by age band."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agegender.data.index.utkface import LABELS
from agegender.errors import AgeGenderError
from agegender.prediction.backends.backend import Backend
from agegender.prediction.prediction import needs_names
from agegender.prediction.predictor import Detect
from agegender.runs.hub_model import read_results
from agegender.tasks.info import TaskInfo
from agegender.version import __version__
from agegender.web.samples import GROUP, NAMES
from agegender.weights.age_bands import read_age_bands

_NUMBER = (
    "The {name} is an estimate {of}. Its interval is fitted to contain the true {name} of 80 % of the test faces, so "
    "it misses one in five, and more at some {values}."
)
_CLASSES = (
    "The {name} is {labels} of the training data{source}; the probability is that of this label. Neither is a "
    "statement about a person's identity."
)
_UTKFACE = " (UTKFace), which was assigned by appearance"
_UNSURE = (
    "If the probability of the {likelier} {name} is below {percent:.3g} %, the {name} is given as unsure; that limit "
    "is the setting min_confidence."
)
_RESEARCH = (
    "The weights and their predictions are for non-commercial research only. They must not be used for decisions about "
    "a person."
)
_DRAWN = "These weights were trained on drawn faces: their predictions say nothing about real people."


def describe_model(network: Backend, tasks: Sequence[TaskInfo], detect: Detect) -> dict[str, Any]:
    """Return what the page shows of a model, except the limits of an image.

    Args:
        network: The network.
        tasks: Its tasks, with the `min_confidence` in use.
        detect: Default of the face detection, see `Predictor`.
    """
    drawn = network.trained_on_synthetic
    samples = [name for name in NAMES if name != GROUP or detect != "never"]
    return {
        "version": __version__,
        "weights": network.weights.name,
        "trained_on_synthetic": drawn,
        "detect": detect,
        "tasks": [info.to_dict() for info in tasks],
        "names": needs_names(tasks),
        "meaning": disclaimer(drawn, tasks),
        "figures": read_test_metrics(network.weights, tasks),
        # weights trained on drawn faces take single ones whole
        "samples": [
            {"address": f"samples/{name}", "detect": "never" if drawn and name != GROUP else detect} for name in samples
        ],
    }


def disclaimer(trained_on_synthetic: bool, tasks: Sequence[TaskInfo]) -> list[str]:
    """Return paragraphs on the meaning and the limits of the predictions.

    Args:
        trained_on_synthetic: Whether the weights were trained on drawn faces.
        tasks: The predictor's tasks. A `min_confidence` below which no class can be is not mentioned.
    """
    classes = [info for info in tasks if info.classes]
    return [
        *([_DRAWN] if trained_on_synthetic else []),
        *map(_meaning, tasks),
        _RESEARCH,
        *(_unsure(info) for info in classes if info.min_confidence > 1 / len(info.classes)),
    ]


def _meaning(info: TaskInfo) -> str:
    if info.kind == "number":
        of, values = "from the look of a face", "values"
        if info.label == "age":
            of, values = "of how old a face looks", "ages"
        return _NUMBER.format(name=info.name, of=of, values=values)
    labels = "the binary label" if info.kind == "binary" else f"one of {len(info.classes)} labels"
    return _CLASSES.format(name=info.name, labels=labels, source=_UTKFACE if info.label in LABELS else "")


def _unsure(info: TaskInfo) -> str:
    likelier = "likelier" if info.kind == "binary" else "likeliest"
    return _UNSURE.format(likelier=likelier, name=info.name, percent=100 * info.min_confidence)


def read_test_metrics(weights: Path, tasks: Sequence[TaskInfo]) -> dict[str, Any] | None:
    """Read the test metrics of weights, from the .json file bundled beside them or from their run.

    Returns:
        For each task `<task>_mae` in its unit or `<task>_acc` from 0 to 1; `images` (number of test faces) and `bands`
        (see `weights.age_bands`); each None if missing. None if there are no metrics.
    """
    run = weights.parent.parent if weights.parent.name == "checkpoints" and weights.name == "best.ckpt" else None
    if weights.suffix == ".safetensors":
        metrics = read_results(weights)
    else:
        metrics = _read(weights.with_suffix(".json")) or (_read(run / "metrics.json") if run else {})
    try:
        bands = metrics.get("bands") or (read_age_bands(run) if run else None)
    except AgeGenderError:
        bands = None  # a damaged report: the page shows the other metrics
    names = [f"{info.name}_{'mae' if info.kind == 'number' else 'acc'}" for info in tasks]
    found = {name: _finite(metrics.get(f"test/{name}")) for name in names}
    has_any = bands or any(value is not None for value in found.values())
    return {**found, "images": _finite(metrics.get("images/test")), "bands": bands} if has_any else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
