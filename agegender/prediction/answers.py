"""What is answered for a face, and how it is rounded and named wherever it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

NO_FACE = "no face found"
UNSURE = "unsure"  # a gender that is not probable enough to be an answer


@dataclass(frozen=True)
class Prediction:
    """The answer for one face, or why there is none for a picture.

    Attributes:
        path: The picture as it was given: a path or an address; of a video, with the second after `#t=`.
        face: The face's number in its picture, from 1, the largest first; None if there is no answer.
        left: The face's box in pixels of the upright picture; None if no face was looked for.
        top: Likewise.
        right: Likewise.
        bottom: Likewise.
        score: How sure the detector is that this is a face, up to 1; None likewise.
        age: Years.
        age_std: Standard deviation of the age's error in years; None if the model states none.
        age_low: The youngest age that fits the face, in whole years: from here to `age_high` lie 80 % of the true ages;
            None likewise.
        age_high: The oldest.
        p_female: Probability of the data set's label `female`.
        gender: `female` if `p_female` is above one half, else `male`; `unsure` if the likelier of the two is less
            probable than the predictor's `min_confidence`.
        error: Why there is no answer.
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


def as_row(prediction: Prediction) -> dict[str, Any]:
    """Returns an answer's columns, rounded to what they are worth."""
    row = asdict(prediction)
    return row | {name: round(row[name], digits) for name, digits in _DIGITS.items() if row[name] is not None}


def in_words(prediction: Prediction) -> tuple[str, str]:
    """Returns the age and the gender for people, such as `34 (27-43)` and `female 97 %`, or `unsure`."""
    if prediction.age is None or prediction.p_female is None or prediction.gender is None:
        raise ValueError("there is no answer to put into words")
    within = "" if prediction.age_low is None else f" ({prediction.age_low:.0f}-{prediction.age_high:.0f})"
    age = f"{prediction.age:.0f}{within}"
    if prediction.gender == UNSURE:
        return age, UNSURE
    share = prediction.p_female if prediction.gender == "female" else 1 - prediction.p_female
    return age, f"{prediction.gender} {100 * share:.0f} %"
