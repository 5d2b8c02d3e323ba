"""Readers of the cells of a table's labels: a value, a missing label, or a reason to quarantine the row."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agegender.data.index.utkface import CLASSES, GENDERS, LABELS
from agegender.errors import require

RESERVED = ("path", "file", "split", "duplicate_group", "sha256")  # columns of tables and of index.csv, no labels
UNKNOWN = ("", "na", "n/a", "nan", "none", "null", "unknown")  # cells that mean a missing label
MAX_LABEL_AGE = 999  # years; limit of UTKFace's names
MAX_NUMBER = float(np.finfo(np.float32).max)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"(\d+)\.0*", re.ASCII)  # an integer in a float column, as pandas writes it

Label = float | str | None  # a number or a class's code; the text of a group until all groups are known; None: missing
Reader = Callable[[str], Label]


class QuarantinedRowError(ValueError):
    """A row that can't be parsed without guessing; the message is the reason."""


def label_readers(labels: Mapping[str, Sequence[str] | None], age_range: Sequence[int]) -> dict[str, Reader]:
    """Return the reader of each label's cells; those of `LABELS` come first.

    Args:
        labels: Labels of tasks, and their classes; None for a number. Without classes for `group`, its texts are kept.
        age_range: Lowest and highest accepted age in years, inclusive.

    Raises:
        AgeGenderError: A label has a reserved name, or one of `LABELS` is taken as what it is not.
    """
    readers: dict[str, Reader] = {
        "age": lambda text: _age(text, age_range),
        "gender": _class_reader("gender", GENDERS),
        "group": _group,
    }
    for name, classes in labels.items():
        require(name.casefold() not in RESERVED, f"a column {name} is no label: rename it in the table and in the task")
        meaning = "classes" if name in CLASSES else "a number"
        fits = name not in LABELS or (classes is None) == (meaning == "a number")
        require(fits, f"the label {name} is {meaning}: give the task another column")
        if classes is not None:
            readers[name] = _class_reader(name, classes)
        elif name != "age":
            readers[name] = lambda text, name=name: _number(name, text)  # type: ignore[misc]
    return readers


def _age(text: str, age_range: Sequence[int]) -> float | None:
    """Return completed years; None if missing."""
    if text.casefold() in UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text):
        raise QuarantinedRowError(f"age {shown(text)} is not a number of years")
    if not max(age_range[0], 0) <= float(text) < min(age_range[1], MAX_LABEL_AGE) + 1:
        raise QuarantinedRowError(f"age {shown(text)} outside {age_range[0]}..{age_range[1]}")
    return math.floor(float(text))


def _number(label: str, text: str) -> float | None:
    if text.casefold() in UNKNOWN:
        return None
    if not _NUMBER.fullmatch(text) or abs(float(text)) > MAX_NUMBER:
        raise QuarantinedRowError(f"{label} {shown(text)} is not a finite number")
    return float(text)


def _class_reader(label: str, classes: Sequence[str]) -> Reader:
    """Return the reader of a label with classes: a class's name in any case, or its code.

    If a name is a number itself, cells hold names only. A name takes precedence over a word for missing labels.
    """
    codes = {_key(name): code for code, name in enumerate(classes)}
    numbers = {} if any(key.isdigit() for key in codes) else {str(code): code for code in range(len(classes))}
    letters = {"m": 0, "f": 1} if tuple(classes) == GENDERS else {}
    codes |= numbers | letters
    expected = ", ".join([*numbers, *classes, *letters])

    def read(text: str) -> float | None:
        code = codes.get(_key(text))
        if code is None and text.casefold() not in UNKNOWN:
            raise QuarantinedRowError(f"{label} {shown(text)} is none of {expected}")
        return code

    return read


def _group(text: str) -> str | None:
    """Return the text of a group as one line of valid Unicode, for pages and plots; None if missing."""
    group = " ".join(_code(text).split()).encode(errors="replace").decode()
    return None if group.casefold() in UNKNOWN else group


def _key(text: str) -> str:
    """Return a class's name, or a cell, as it is compared."""
    return _code(" ".join(text.split())).casefold()


def _code(text: str) -> str:
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def shown(text: str) -> str:
    """Return a cell as it is quoted in messages, at most 40 characters of it."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
