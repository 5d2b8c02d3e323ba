"""The prediction for a face: its values, their rounding and their wording, shared by all outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agegender.tasks.info import TaskInfo

NO_FACE = "no face found"
_WORDLESS = {"no", "yes", "false", "true", "0", "1"}  # class names that need the task's name beside them


@dataclass(frozen=True)
class Prediction:
    """The prediction for one face, or the error for an image without one.

    Attributes:
        path: Path or URL of the image as it was given; for a video frame, with its time in seconds after `#t=`.
        face: Number of the face in its image, from 1, the largest first; None if there is an error.
        left: Left edge of the face box in pixels of the upright image; None if no detector was run.
        top: Top edge of the box, likewise.
        right: Right edge of the box, likewise.
        bottom: Bottom edge of the box, likewise.
        score: Confidence of the detector, up to 1; None if no detector was run.
        values: The values of all tasks, by the names in `TaskInfo.fields`; None where the model doesn't predict one.
            Empty if there is an error.
        error: Why there is no prediction; None if there is one.
        track: Number of the person in the video, from 1; None for an image, or if tracks were not asked for.
    """

    path: str
    face: int | None = None
    left: float | None = None
    top: float | None = None
    right: float | None = None
    bottom: float | None = None
    score: float | None = None
    values: dict[str, Any] = field(default_factory=dict, hash=False)
    error: str | None = None
    track: int | None = None

    @property
    def age(self) -> float | None:
        """Age in years; None if there is an error, or the model doesn't predict it."""
        return self.values.get("age")

    @property
    def age_std(self) -> float | None:
        """Standard deviation of the age error in years, likewise."""
        return self.values.get("age_std")

    @property
    def age_low(self) -> float | None:
        """Lower end, in whole years, of the 80 % prediction interval of the age, likewise."""
        return self.values.get("age_low")

    @property
    def age_high(self) -> float | None:
        """Upper end of the interval, likewise."""
        return self.values.get("age_high")

    @property
    def p_female(self) -> float | None:
        """Probability of the data set's label `female`, likewise."""
        return self.values.get("p_female")

    @property
    def gender(self) -> str | None:
        """The likelier of `female` and `male`, `unsure` if its probability is below `min_confidence`; likewise."""
        return self.values.get("gender")


_DIGITS = {"left": 1, "top": 1, "right": 1, "bottom": 1, "score": 3}
_PLACE = ("path", "face", *_DIGITS)
_PLACE_TRACKED = ("path", "face", "track", *_DIGITS)


def columns_of(tasks: Sequence[TaskInfo], tracked: bool = False) -> tuple[str, ...]:
    """Return the names of the columns of `to_row`, in order."""
    return (*(_PLACE_TRACKED if tracked else _PLACE), *(name for info in tasks for name in info.fields), "error")


def to_row(prediction: Prediction, tasks: Sequence[TaskInfo], tracked: bool = False) -> dict[str, Any]:
    """Return the columns of a prediction, rounded to their precision; None where there is an error.

    Args:
        prediction: The prediction.
        tasks: The predictor's tasks.
        tracked: Whether there is a column `track`.
    """
    place = {name: getattr(prediction, name) for name in (_PLACE_TRACKED if tracked else _PLACE)}
    row: dict[str, Any] = dict.fromkeys(columns_of(tasks, tracked))
    row |= place | round_values(prediction.values, tasks) | {"error": prediction.error}
    for name, decimals in _DIGITS.items():
        if row[name] is not None:
            row[name] = round(row[name], decimals)
    return row


def round_values(values: Mapping[str, Any], tasks: Sequence[TaskInfo]) -> dict[str, Any]:
    """Return the values of a prediction, rounded to the precision of their columns."""
    digits = dict(item for info in tasks for item in zip(info.columns, info.digits, strict=True))
    return {
        name: round(value, digits[name]) if name in digits and value is not None else value
        for name, value in values.items()
    }


def needs_names(tasks: Sequence[TaskInfo]) -> bool:
    """Return whether texts on a prediction need the names of the tasks: not for one number beside one clear class."""
    classes = [set(map(str.casefold, info.classes)) for info in tasks if info.classes]
    return len(classes) > 1 or len(tasks) - len(classes) > 1 or any(names <= _WORDLESS for names in classes)


def describe(prediction: Prediction, tasks: Sequence[TaskInfo]) -> list[str]:
    """Return a text for each task, such as `34 (27-43)` and `female 97 %`; with names, `glasses: no 88 %`.

    Args:
        prediction: A prediction without an error.
        tasks: The predictor's tasks.
    """
    named = needs_names(tasks)
    return [f"{info.name}: " * named + info.describe(prediction.values) for info in tasks]
