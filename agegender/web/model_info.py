"""Information about the loaded weights: the meaning of their predictions, and their metrics by age band."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError
from agegender.evaluation.report.age_bands import read_age_bands

_METRIC_KEYS = {"age_mae": "test/age_mae", "gender_acc": "test/gender_acc", "images": "images/test"}
_MEANING = (
    "The age is an estimate of how old a face looks. Its interval is fitted to contain the true age of 80 % of the "
    "test faces, so it misses one in five, and more at some ages.",
    "The gender is the binary label of the training data (UTKFace), which was assigned by appearance; the probability "
    "is that of this label. Neither is a statement about a person's identity.",
    "The weights and their predictions are for non-commercial research only. They must not be used for decisions about "
    "a person.",
)
_DRAWN = "These weights were trained on drawn faces: their predictions say nothing about real people."


def disclaimer(trained_on_synthetic: bool, min_confidence: float) -> list[str]:
    """Return paragraphs on the meaning and the limits of the predictions.

    Args:
        trained_on_synthetic: Whether the weights were trained on drawn faces.
        min_confidence: See `Predictor`. At 0.5 every face gets a gender, and the threshold is not mentioned.
    """
    percent = f"{100 * min_confidence:.3g} %"
    unsure = f"If the probability of the likelier gender is below {percent}, the gender is given as unsure."
    return [
        *([_DRAWN] if trained_on_synthetic else []),
        *_MEANING,
        *([unsure] if min_confidence > 0.5 else []),
    ]


def read_test_metrics(weights: Path) -> dict[str, Any] | None:
    """Read the test metrics of weights, from the .json file packed beside them or from their run.

    Returns:
        `age_mae` in years, `gender_acc` from 0 to 1, `images` (number of test faces) and `bands` (see
        `evaluation.report.age_bands`), each None if missing; None if there are no metrics.
    """
    run = weights.parent.parent if weights.parent.name == "checkpoints" and weights.name == "best.ckpt" else None
    try:
        metrics = _read(weights.with_suffix(".json")) or (_read(run / "metrics.json") if run else {})
        bands = metrics.get("bands") or (read_age_bands(run) if run else None)
    except AgeGenderError:
        bands = None  # a damaged report: the page shows the other metrics
    values = {name: metrics.get(key) for name, key in _METRIC_KEYS.items()}
    finite = {name: value if _is_number(value) else None for name, value in values.items()}
    return {**finite, "bands": bands} if bands or finite["age_mae"] is not None else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
