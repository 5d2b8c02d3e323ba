"""The plain description of a task, shared by checkpoints, exported files, predictions and reports; needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agegender.errors import AgeGenderError, require
from agegender.system.csv_escape import is_plain

Kind = Literal["number", "binary", "classes"]
NUMBER_COLUMNS = 4  # of a number: its value, standard deviation and interval; then its probabilities of thresholds
AGE = "age"  # the task that thresholds are for
MAX_THRESHOLD = 120  # years
HALF = 0.5  # a label of completed years of at least T is a number above T - 0.5
UNSURE = "unsure"  # class whose probability is below the task's min_confidence


@dataclass(frozen=True)
class TaskInfo:
    """What a task predicts, as plain values.

    Attributes:
        name: Name of the task, its key in `tasks` of the config.
        kind: `number`, `binary` (two classes, one probability) or `classes`.
        label: Column of the index that holds the labels: numbers, or positions in `classes`.
        columns: Names of the numbers that the network returns. For a number: the value, its standard deviation, the
            ends of the 80 % interval, then the probability of each threshold (see `tail_column`); for classes: one
            probability for each, for `binary` only that of `classes[1]`.
        digits: Decimals of each of `columns` in files; None for whole numbers.
        classes: Names of the classes, in the order of their codes; empty for a number.
        unit: Unit of a number.
        min_confidence: Probability of the likeliest class below which the class is `unsure`.
    """

    name: str
    kind: Kind
    label: str
    columns: tuple[str, ...]
    digits: tuple[int | None, ...]
    classes: tuple[str, ...] = ()
    unit: str = ""
    min_confidence: float = 0.5

    @classmethod
    def from_dict(cls, saved: Any) -> TaskInfo:
        """Build a description from a file's plain values.

        Raises:
            AgeGenderError: The values are not a task's description.
        """
        try:
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in saved.items()}
            info = cls(**values)
            count = len(info.classes)
            sizes = {
                "number": (max(NUMBER_COLUMNS, len(info.columns)), 0),
                "binary": (1, 2),
                "classes": (max(2, count), count),
            }
            texts = (info.name, info.label, info.unit, *info.columns, *info.classes)
            valid = (len(info.columns), count) == sizes[info.kind] and len(info.digits) == len(info.columns)
            valid = valid and all(digits is None or isinstance(digits, int) for digits in info.digits)
            valid = valid and all(map(is_plain, texts)) and 0 <= info.min_confidence <= 1
        except (TypeError, ValueError, AttributeError, KeyError):
            valid = False
        if not valid:
            raise AgeGenderError("the description of a task is invalid: the file is damaged, or of another version")
        return info

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values for a checkpoint or JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the columns of a prediction: `columns`, and for classes the name of the predicted class."""
        return self.columns if self.kind == "number" else (*self.columns, self.name)

    @property
    def test_columns(self) -> tuple[str, ...]:
        """Names of `columns` in `predictions.csv`, where `name` is the label: a number's value is `<name>_pred`."""
        return (f"{self.name}_pred", *self.columns[1:]) if self.kind == "number" else self.columns

    def probabilities(self, values: Mapping[str, float]) -> list[float]:
        """Return the probability of each class, from a prediction's values."""
        if self.kind == "binary":
            second = values[self.columns[0]]
            return [1 - second, second]
        return [values[column] for column in self.columns]

    def predicted_class(self, values: Mapping[str, float], min_confidence: float | None = None) -> str:
        """Return the name of the likeliest class; `unsure` if its probability is below `min_confidence`, or NaN.

        Args:
            values: A prediction's values, by the names in `columns`.
            min_confidence: None for that of the task. At equal probabilities the first class is taken.
        """
        probabilities = self.probabilities(values)
        highest = max(probabilities)
        least = self.min_confidence if min_confidence is None else min_confidence
        return self.classes[probabilities.index(highest)] if highest >= least else UNSURE

    def values(self, columns: Mapping[str, float]) -> dict[str, Any]:
        """Return a prediction's values by the names in `fields`, from the network's `columns`; NaN becomes None."""
        found: dict[str, Any] = {name: columns[name] if math.isfinite(columns[name]) else None for name in self.columns}
        return found if self.kind == "number" else found | {self.name: self.predicted_class(columns)}

    @property
    def decimals(self) -> int:
        """Decimals of a number in texts: those of the ends of its interval."""
        return self.digits[NUMBER_COLUMNS - 1] or 0

    def interval(self, values: Mapping[str, Any], dash: str = "-") -> str:
        """Return the interval of a number as text, such as `27-43`; empty if there is none."""
        low, high = (values[column] for column in self.columns[2:NUMBER_COLUMNS])
        if low is None or high is None:
            return ""
        return f"{low:.{self.decimals}f}{dash if low >= 0 else ' to '}{high:.{self.decimals}f}"

    def describe(self, values: Mapping[str, Any]) -> str:
        """Return a prediction as text, such as `34 (27-43)`, `female 97 %` or `unsure`.

        Args:
            values: A prediction's values, by the names in `fields`; those of a number may be None.
        """
        if self.kind == "number":
            value, interval = values[self.columns[0]], self.interval(values)
            if value is None:
                return "unknown"
            return f"{value:.{self.decimals}f}" + (f" ({interval})" if interval else "")
        name: str = values[self.name]
        if name == UNSURE:
            return name
        return f"{name} {100 * max(self.probabilities(values)):.0f} %"


def tail_column(name: str, threshold: int) -> str:
    """Return the name of the column with the probability that a number is at least `threshold`."""
    return f"p_{name}_from_{threshold}"


def check_thresholds(thresholds: Sequence[int]) -> None:
    """Check ages that are given as thresholds.

    Raises:
        AgeGenderError: One is out of range, or given twice.
    """
    whole = all(isinstance(each, int) and each is not True and 1 <= each <= MAX_THRESHOLD for each in thresholds)
    given = ",".join(map(str, thresholds))
    require(whole, f"thresholds=[{given}] must be whole years from 1 to {MAX_THRESHOLD}, such as [18,25]")
    require(len(set(thresholds)) == len(thresholds), f"thresholds=[{given}] names an age twice")


def read_tasks(saved: Sequence[Any]) -> tuple[TaskInfo, ...]:
    """Return the descriptions of tasks from a file's plain values.

    Raises:
        AgeGenderError: A description is invalid.
    """
    if not isinstance(saved, list | tuple):
        raise AgeGenderError("the description of the tasks is invalid: the file is damaged, or of another version")
    tasks = tuple(TaskInfo.from_dict(each) for each in saved)
    fields = [name for info in tasks for name in info.fields]
    require(len(set(fields)) == len(fields), "two tasks have a column of the same name: the file is damaged")
    return tasks
