"""Predictions made by hand, and the tasks that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE

from agegender.prediction.prediction import Prediction
from agegender.tasks.info import TaskInfo

TWO = (AGE, GENDER)
FIVE = (AGE, GENDER, SMILE, HEIGHT, ETHNICITY)


def made(
    path: str = "a.jpg",
    face: int = 1,
    box: Sequence[float | None] = (None,) * 4,
    score: float | None = None,
    tasks: Sequence[TaskInfo] = TWO,
    **values: Any,
) -> Prediction:
    """Returns a prediction for a face; values that are not given are None."""
    left, top, right, bottom = box
    unknown = {name: None for info in tasks for name in info.fields}
    return Prediction(path, face, left, top, right, bottom, score, unknown | values)
