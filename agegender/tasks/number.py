"""The common part of tasks whose label is a number: columns, metrics, intervals and the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from agegender.errors import require
from agegender.tasks.fit_intervals import fit_intervals
from agegender.tasks.info import AGE, HALF, Kind, TaskInfo, check_thresholds, tail_column
from agegender.tasks.intervals import STEPS, IntervalCalibration
from agegender.tasks.task import Floats, Task, TaskMetric


class NumberTask(Task):
    """A number, such as an age: predicted with its standard deviation and an interval.

    A subclass implements `loss`, `value` and, if its outputs imply them, `spread` and `tail`.

    Attributes:
        thresholds: Whole numbers T, for each of which P(number >= T) is a further column; `set_thresholds` sets them.
    """

    kind: ClassVar[Kind] = "number"
    num_outputs = 1
    calibration_type = IntervalCalibration
    calibration: IntervalCalibration | None
    thresholds: tuple[int, ...] = ()

    def __init__(
        self,
        label: str,
        weight: float = 1.0,
        unit: str = "",
        limits: Sequence[float] | None = None,
        tolerance: float | None = None,
        digits: int = 2,
    ):
        """Set what is common to all numbers.

        Args:
            label: See `Task`.
            weight: See `Task`.
            unit: Name of the unit, such as `years`.
            limits: Lowest and highest possible value; None for those of the validation labels. An interval's ends are
                among 121 evenly spaced values between them: whole years for `[0, 120]`.
            tolerance: Error up to which a prediction counts in the cumulative score `cs<tolerance>`; None for no score.
            digits: Decimals in files.

        Raises:
            AgeGenderError: A value is out of range.
        """
        super().__init__(label, weight)
        fits = limits is None or (len(limits) == 2 and limits[0] < limits[1])
        require(fits, f"limits={limits} must be two numbers, the lower one first, or null")
        require(tolerance is None or tolerance >= 0, f"tolerance={tolerance} must be at least 0, or null")
        require(digits >= 0, f"digits={digits} must be at least 0")
        self.unit, self.tolerance, self.digits = unit, tolerance, digits
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))

    @property
    def is_whole(self) -> bool:
        """Whether the ends of the intervals are whole numbers, like the labels."""
        if self.limits is None:
            return False
        return self.limits[0].is_integer() and ((self.limits[1] - self.limits[0]) / STEPS).is_integer()

    @property
    def info(self) -> TaskInfo:
        """The value, its standard deviation, the ends of its 80 % interval, and the probabilities of thresholds."""
        ends = None if self.is_whole else self.digits
        tails = tuple(tail_column(self.name, threshold) for threshold in self.thresholds)
        return TaskInfo(
            name=self.name,
            kind=self.kind,
            label=self.label,
            columns=(self.name, f"{self.name}_std", f"{self.name}_low", f"{self.name}_high", *tails),
            digits=(self.digits, self.digits, ends, ends, *(4 for _ in tails)),
            unit=self.unit,
        )

    def value(self, raw: Tensor) -> Tensor:
        """Map raw outputs `[batch, num_outputs]` to values `[batch]` in the label's unit."""
        raise NotImplementedError

    def spread(self, raw: Tensor) -> Tensor | None:
        """Return the standard deviation `[batch]` that the outputs imply; None if they imply none."""
        return None

    def decode(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the values, each `[batch]`."""
        return {self.name: self.value(raw)}

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the value, the standard deviation of its error and the interval as calibrated, and the tails.

        Each is `[batch]`.

        Without a calibration, the standard deviation is the outputs' own, and the interval is unknown (NaN).
        """
        value, spread = self.value(raw), self.spread(raw)
        unknown = torch.full_like(value, math.nan)
        if self.calibration is None:
            std, ends = unknown if spread is None else spread, (unknown, unknown)
        else:
            stated = torch.ones_like(value) if spread is None else spread
            std, ends = self.calibration.std_of(value, stated), self.calibration.interval(value, stated)
        tails = (self.tail(raw, value, std, threshold) for threshold in self.thresholds)
        return dict(zip(self.info.columns, (value, std, *ends, *tails), strict=True))

    def tail(self, raw: Tensor, value: Tensor, std: Tensor, threshold: int) -> Tensor:
        """Return the probability `[batch]` that the label, a whole number, is at least `threshold`.

        By default that of a normal distribution with the calibrated standard deviation; the report has the same formula
        in NumPy, `calibration.normal_tail`.

        Args:
            raw: `[batch, num_outputs]`.
            value: `[batch]`, predicted values.
            std: `[batch]`, calibrated standard deviations; NaN where unknown.
            threshold: A whole number.
        """
        return (1 + torch.erf((value - threshold + HALF) / (std * math.sqrt(2)))) / 2

    def metrics(self) -> dict[str, TaskMetric]:
        """Return the mean absolute and squared error and, with a tolerance, the cumulative score."""
        from torchmetrics import MeanAbsoluteError, MeanSquaredError  # slow to import: training only

        from agegender.tasks.metrics import CumulativeScore

        unit, alone = f", {self.unit}" if self.unit else "", {"sync_on_compute": False}
        found = {"mae": TaskMetric(MeanAbsoluteError(**alone), self.name, f"{self.name} MAE{unit}", "{:.2f}")}
        if self.tolerance is not None:
            score = CumulativeScore(self.tolerance, **alone)
            title = f"{self.name} within {self.tolerance:g} {self.unit}".rstrip() + f" (CS@{self.tolerance:g})"
            found[f"cs{self.tolerance:g}"] = TaskMetric(score, self.name, title, "{:.1%}")
        squared = f"{unit} squared" if unit else ""
        found["mse"] = TaskMetric(MeanSquaredError(**alone), self.name, f"{self.name} MSE{squared}", "{:.1f}")
        return found

    def baseline(self, train: Floats, test: Floats) -> dict[str, float]:
        """Return the MAE of the training median on the test labels."""
        return {"mae": float(np.abs(test - np.median(train)).mean())}

    def calibration_inputs(self, raw: Tensor) -> Tensor:
        """Return the values and the spreads (ones if the outputs imply none), `[batch, 2]`."""
        value, spread = self.value(raw), self.spread(raw)
        return torch.stack((value, torch.ones_like(value) if spread is None else spread), 1)

    def fit_calibration(self, inputs: Floats, target: Floats, corrupted: Floats) -> None:
        """Fit standard deviations and intervals to the faces as they are and corrupted: see `fit_intervals`.

        There is no calibration if a prediction is not finite, because the network has diverged, or without a label.
        """
        known = np.isfinite(target)
        self.calibration = None
        if not known.any() or not np.isfinite(inputs).all():
            return
        both = np.concatenate((inputs, corrupted)) if np.isfinite(corrupted).all() else inputs
        labels = np.concatenate((target, target))[: len(both)]
        known = np.isfinite(labels)
        limits = self.limits or (float(labels[known].min()), float(labels[known].max()) + 1e-6)
        value, spread = both[known].T
        self.calibration = fit_intervals(value, spread, labels[known], limits)


def set_thresholds(tasks: Iterable[Task], thresholds: Sequence[int]) -> None:
    """Make the task `age` predict the probabilities of being at least so old, as further columns.

    Args:
        tasks: The tasks of a network; that of the age is modified in place.
        thresholds: Ages in whole years; none changes nothing.

    Raises:
        AgeGenderError: A threshold is invalid, or no task predicts an age in whole years.
    """
    if not thresholds:
        return
    check_thresholds(thresholds)
    ages = [task for task in tasks if isinstance(task, NumberTask) and task.name == AGE and task.is_whole]
    given = ",".join(map(str, thresholds))
    require(bool(ages), f"thresholds=[{given}] needs a task age in whole years, which is missing here: leave it out")
    ages[0].thresholds = tuple(thresholds)
