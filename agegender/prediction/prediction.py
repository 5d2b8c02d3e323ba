"""The prediction for a face: its fields, their rounding and their wording, shared by all outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

NO_FACE = "no face found"
UNSURE = "unsure"  # gender whose probability is below min_confidence


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
        age: Age in years.
        age_std: Standard deviation of the age error in years; None if the model doesn't predict one.
        age_low: Lower end, in whole years, of the 80 % prediction interval of the age; None if the model doesn't
            predict one.
        age_high: Upper end of the interval, likewise.
        p_female: Probability of the data set's label `female`.
        gender: `female` if `p_female` is above 0.5, else `male`; `unsure` if the probability of the likelier of the
            two is below the predictor's `min_confidence`.
        error: Why there is no prediction; None if there is one.
    """

    path: str
    face: int | None = None
    left: float | None = None
    top: float | None = None
    right: float | None = None
    bottom: float | None = None
    score: float | None = None
    age: float | None = None
    age_std: float | None = None
    age_low: float | None = None
    age_high: float | None = None
    p_female: float | None = None
    gender: str | None = None
    error: str | None = None


COLUMNS = tuple(field.name for field in fields(Prediction))
_BOX = dict.fromkeys(("left", "top", "right", "bottom"), 1)
_DIGITS = {**_BOX, "score": 3, "age": 2, "age_std": 2, "age_low": None, "age_high": None, "p_female": 4}


def to_row(prediction: Prediction) -> dict[str, Any]:
    """Return the columns of a prediction, rounded to their precision."""
    row = asdict(prediction)
    return row | {name: round(row[name], digits) for name, digits in _DIGITS.items() if row[name] is not None}


def describe(prediction: Prediction) -> tuple[str, str]:
    """Return the age and the gender as text, such as `34 (27-43)` and `female 97 %`, or `unsure`."""
    if prediction.age is None or prediction.p_female is None or prediction.gender is None:
        raise ValueError("the prediction has an error instead of values")
    within = "" if prediction.age_low is None else f" ({prediction.age_low:.0f}-{prediction.age_high:.0f})"
    age = f"{prediction.age:.0f}{within}"
    if prediction.gender == UNSURE:
        return age, UNSURE
    probability = prediction.p_female if prediction.gender == "female" else 1 - prediction.p_female
    return age, f"{prediction.gender} {100 * probability:.0f} %"
