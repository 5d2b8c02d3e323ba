"""Error rates at age limits, as NIST counts them, and the calibration of P(age >= limit)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.calibration import Reliability, normal_tail, reliability, weighted_ece
from agegender.evaluation.statistics.metrics import Floats
from agegender.evaluation.statistics.task_values import Values
from agegender.tasks.info import AGE, TaskInfo, tail_column

YEARS = "years"  # unit of the task whose age limits are measured
NEAR = 5  # years below a limit: the faces that are likeliest to pass wrongly
MARGIN = 7  # years from a limit to the challenge age of the page's table: "Challenge 25" for a limit of 18
MAX_MARGIN = 15  # years from a limit to the highest challenge age
AROUND = 8  # true ages on either side of a limit

Estimates = dict[tuple[str, ...], Estimate]  # by the keys of `statistics_of`


@dataclass(frozen=True)
class Rates:
    """The error rates of one rule: to pass, a face must be predicted at least as old as a challenge age.

    Attributes:
        passed: Fraction of the faces under the limit who pass (false positive rate).
        passed_near: The same for the faces at most `NEAR` years under the limit.
        refused: Fraction of the faces of the limit or more who are turned away.
    """

    passed: Estimate
    passed_near: Estimate
    refused: Estimate


@dataclass(frozen=True)
class Counts:
    """Numbers of faces under a limit, at most `NEAR` years under it, and of the limit or more."""

    under: int
    near: int
    over: int


@dataclass(frozen=True)
class Subgroup:
    """The error rates at a limit, without a challenge age, of the faces of one class of a label."""

    name: str
    faces: Counts
    rates: Rates


@dataclass(frozen=True)
class TrueAge:
    """The faces of one true age, and the fraction of them who pass."""

    age: int
    faces: int
    passed: Estimate


@dataclass(frozen=True)
class LimitMetrics:
    """The metrics of one age limit.

    Attributes:
        limit: The limit T in years.
        faces: Numbers of faces.
        challenges: Rates by challenge age, from the limit itself up to `MAX_MARGIN` years more.
        ages: Fractions who pass by true age, around the limit.
        subgroups: By label, for labels that are classes.
        probability: Source of P(age >= T): `predicted` in a column of predictions.csv, or that of a `normal`
            distribution with the predicted standard deviation; None if neither is predicted.
        ece: Expected calibration error of P(age >= T); None without it.
        reliability: Reliability diagram of P(age >= T); None without it.
    """

    limit: int
    faces: Counts
    challenges: dict[int, Rates]
    ages: list[TrueAge]
    subgroups: dict[str, list[Subgroup]]
    probability: Literal["predicted", "normal"] | None
    ece: Estimate | None
    reliability: Reliability | None


class Limit:
    """One age limit on the faces of a run: its means over faces by key, and its metrics from their estimates."""

    def __init__(self, run: RunPredictions, task: TaskInfo, limit: int):
        """Set the limit T in years; `task` predicts the age."""
        self._run, self._task, self.limit = run, task, limit
        self._true, self._predicted = run.labels[task.label], run.columns[task.columns[0]]
        under = self._true < limit  # False where the age is unknown
        self._masks = {"passed": under, "passed_near": under & (self._true >= limit - NEAR)}
        self._masks["refused"] = self._true >= limit
        self._around = [
            (age, int((self._true == age).sum())) for age in range(limit - AROUND, limit + AROUND) if age >= 0
        ]
        self._groups = {
            (label, name): run.labels[label] == code
            for label in run.labels
            for code, name in enumerate(run.classes.get(label, ()))
            if (run.labels[label] == code).any()
        }

    @property
    def is_measurable(self) -> bool:
        """Whether there are faces on both sides of the limit."""
        return bool(self._masks["passed"].any() and self._masks["refused"].any())

    def means(self) -> dict[tuple[str, ...], Values]:
        """Return the values and the mask of each mean over faces, by key."""
        found: dict[tuple[str, ...], Values] = {}
        everyone = np.ones(len(self._true), dtype=bool)
        for margin in range(MAX_MARGIN + 1):
            found |= self._rates(self.limit + margin, everyone, str(margin))
        for (label, name), mask in self._groups.items():
            found |= self._rates(self.limit, mask, label, name)
        passes = self._passes(self.limit)
        return found | {("age", str(age)): (passes, self._true == age) for age, _ in self._around}

    def _passes(self, challenge: int) -> Floats:
        return (self._predicted >= challenge).astype(np.float64)

    def _rates(self, challenge: int, part: NDArray[np.bool_], *key: str) -> dict[tuple[str, ...], Values]:
        passes = self._passes(challenge)
        return {
            (*key, name): (1 - passes if name == "refused" else passes, mask & part)
            for name, mask in self._masks.items()
        }

    def ece(self) -> Callable[[Floats], Floats] | None:
        """Return the calibration error as a function of the weights `[b, n]`; None without a probability."""
        source, probability, known = self._probability()
        if source is None:
            return None
        reached = (self._true >= self.limit).astype(np.float64)
        return partial(_on, known, weighted_ece, probability[known], reached[known])

    def _probability(self) -> tuple[Literal["predicted", "normal"] | None, Floats, NDArray[np.bool_]]:
        """Return the source of P(age >= T), its values `[n]`, and the faces `[n]` that have one and a true age."""
        column = self._run.columns.get(tail_column(self._task.name, self.limit))
        source: Literal["predicted", "normal"] = "normal" if column is None else "predicted"
        if column is None:
            std = self._run.columns[self._task.columns[1]]
            column = normal_tail(self._predicted, std, self.limit)
        known = np.isfinite(column) & ~np.isnan(self._true)
        return (source if known.any() else None), column, known

    def metrics(self, estimates: Estimates) -> LimitMetrics:
        """Return the metrics from the estimates of `means` by their keys, and that of `ece` by the key `("ece",)`."""
        source, probability, known = self._probability()
        reached = (self._true >= self.limit).astype(np.float64)
        subgroups: dict[str, list[Subgroup]] = {}
        for (label, name), mask in self._groups.items():
            part = Subgroup(name, self._counts(mask), _rates_of(estimates, label, name))
            subgroups.setdefault(label, []).append(part)
        return LimitMetrics(
            limit=self.limit,
            faces=self._counts(np.ones(len(self._true), dtype=bool)),
            challenges={self.limit + each: _rates_of(estimates, str(each)) for each in range(MAX_MARGIN + 1)},
            ages=[TrueAge(age, faces, estimates["age", str(age)]) for age, faces in self._around if faces],
            subgroups=subgroups,
            probability=source,
            ece=estimates["ece",] if source else None,
            reliability=reliability(probability[known], reached[known]) if source else None,
        )

    def _counts(self, part: NDArray[np.bool_]) -> Counts:
        return Counts(*(int((mask & part).sum()) for mask in self._masks.values()))


def _rates_of(estimates: Estimates, *key: str) -> Rates:
    return Rates(*(estimates[*key, name] for name in ("passed", "passed_near", "refused")))


def _on(
    rows: NDArray[np.bool_],
    statistic: Callable[[Floats, Floats, Floats], Floats],
    probability: Floats,
    outcome: Floats,
    weights: Floats,
) -> Floats:
    return statistic(weights[:, rows], probability, outcome)


def age_task(tasks: Sequence[TaskInfo]) -> TaskInfo | None:
    """Return the task whose age limits are measured: a number named `age`, in years; None without one."""
    fitting = (task for task in tasks if task.name == AGE and task.kind == "number" and task.unit == YEARS)
    return next(fitting, None)
