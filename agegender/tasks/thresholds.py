"""Probabilities that a number reaches a threshold, P(age >= 18): their columns, and the normal approximation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agegender.errors import require

if TYPE_CHECKING:
    from agegender.tasks.task import Task

AGE = "age"  # the task that thresholds are for
HALF = 0.5  # a label of completed years of at least T is a number above T - 0.5
MAX_THRESHOLD = 120


def tail_column(name: str, threshold: int) -> str:
    """Return the name of the column with the probability that a number is at least `threshold`."""
    return f"p_{name}_from_{threshold}"


def check_thresholds(thresholds: Sequence[int]) -> None:
    """Check ages that are given as thresholds.

    Raises:
        AgeGenderError: One is out of range, or given twice.
    """
    whole = all(isinstance(each, int) and 1 <= each <= MAX_THRESHOLD for each in thresholds)
    given = ",".join(map(str, thresholds))
    require(whole, f"thresholds=[{given}] must be whole years from 1 to {MAX_THRESHOLD}, such as [18,25]")
    require(len(set(thresholds)) == len(thresholds), f"thresholds=[{given}] names an age twice")


def normal_tail(value: NDArray[Any], std: NDArray[Any], threshold: int) -> NDArray[np.float64]:
    """Return the probability `[n]` that a whole number is at least `threshold`, by a normal distribution.

    Args:
        value: `[n]`, predictions.
        std: `[n]`, standard deviations of their errors; NaN where none is predicted.
        threshold: A whole number.
    """
    normal, far = NormalDist(), 40.0
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.clip((value - threshold + HALF) / std, -far, far)
    return np.array([normal.cdf(each) for each in distance.tolist()], dtype=np.float64)


def set_thresholds(tasks: Iterable[Task], thresholds: Sequence[int]) -> None:
    """Make the task `age` predict the probabilities of being at least so old, as further columns.

    Args:
        tasks: The tasks of a network; that of the age is modified in place.
        thresholds: Ages in whole years; none changes nothing.

    Raises:
        AgeGenderError: A threshold is invalid, or no task predicts an age in whole years.
    """
    from agegender.tasks.number import NumberTask

    if not thresholds:
        return
    check_thresholds(thresholds)
    ages = [task for task in tasks if isinstance(task, NumberTask) and task.name == AGE and task.is_whole]
    given = ",".join(map(str, thresholds))
    require(bool(ages), f"thresholds=[{given}] needs a task age in whole years, which is missing here: leave it out")
    ages[0].thresholds = tuple(thresholds)
