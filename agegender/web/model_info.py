"""Information about the loaded weights: the meaning of their predictions, and their metrics by age band."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError
from agegender.evaluation.report.age_bands import read_age_bands

_FIGURES = {"age_mae": "test/age_mae", "gender_acc": "test/gender_acc", "images": "images/test"}
_MEANING = (
    "An age is an estimate of how old a face looks. Its interval is made to hold the true age of 80 % of the test "
    "faces, and so misses one in five; at some ages it misses more.",
    "The gender is the binary label of the training data (UTKFace), which others gave from appearance; the probability "
    "is that of this label. It says nothing about anyone's identity.",
    "The weights and their answers are for non-commercial research only. They are not fit to decide anything about a "
    "person.",
)
_DRAWN = "These weights were trained on drawn faces: their predictions say nothing about real people."


def disclaimer(trained_on_synthetic: bool, min_confidence: float) -> list[str]:
    """Return paragraphs on the meaning and the limits of the predictions.

    Args:
        trained_on_synthetic: Whether the weights were trained on drawn faces.
        min_confidence: See `Predictor`. At 0.5 every face gets a gender, and the threshold is not mentioned.
    """
    percent = f"{100 * min_confidence:.3g} %"
    unsure = f"Where the likelier gender is less probable than {percent}, the answer is unsure."
    return [
        *([_DRAWN] if trained_on_synthetic else []),
        *_MEANING,
        *([unsure] if min_confidence > 0.5 else []),
    ]


def read_test_metrics(weights: Path) -> dict[str, Any] | None:
    """Read the test metrics of weights, from the .json file packed beside them or from their run.

    Returns:
        `age_mae` in years, `gender_acc` from 0 to 1, `images` (number of test faces) and `bands` (see
        `evaluation.report_bands`), each None if missing; None if there are no metrics.
    """
    run = weights.parent.parent if weights.parent.name == "checkpoints" and weights.name == "best.ckpt" else None
    try:
        told = _read(weights.with_suffix(".json")) or (_read(run / "metrics.json") if run else {})
        bands = told.get("bands") or (read_age_bands(run) if run else None)
    except AgeGenderError:
        bands = None  # a damaged report: the page shows the other metrics
    figures = {name: told.get(key) for name, key in _FIGURES.items()}
    finite = {name: value if _is_number(value) else None for name, value in figures.items()}
    return {**finite, "bands": bands} if bands or finite["age_mae"] is not None else None


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
