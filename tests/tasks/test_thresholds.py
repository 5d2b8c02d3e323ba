"""P(age >= T) of each task, against cases computed by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from helpers.nodes import AGES, age_task
from torch import Tensor

from agegender.errors import AgeGenderError
from agegender.evaluation.statistics.calibration import normal_tail
from agegender.tasks.info import check_thresholds, tail_column
from agegender.tasks.number import NumberTask, set_thresholds
from agegender.tasks.regression import Regression
from agegender.tasks.task import Task


def logits(*shares: float) -> Tensor:
    """One row of logits whose softmax is the shares."""
    return torch.tensor([shares]).log()


def tail(task: NumberTask, raw: Tensor, threshold: int) -> float:
    return task.tail(raw, torch.full((1,), math.nan), torch.full((1,), math.nan), threshold).item()


def test_tail_of_a_label_distribution_is_the_sum_from_the_threshold_on() -> None:
    task = age_task("dldl", max_age=3)
    raw = logits(0.1, 0.2, 0.3, 0.4)  # of ages 0 to 3
    assert [tail(task, raw, age) for age in (1, 2, 3, 4)] == pytest.approx([0.9, 0.7, 0.4, 0.0])


def test_tail_of_age_classes_spreads_a_class_over_its_years() -> None:
    task = age_task("classes", bin_width=5, max_age=10)
    raw = logits(0.2, 0.5, 0.3)  # 0 to 4, 5 to 9, 10 to 14 and more
    # of 5 to 9, the years 7, 8 and 9 are at least 7
    assert [tail(task, raw, age) for age in (5, 7, 10, 15)] == pytest.approx([0.8, 0.5 * 3 / 5 + 0.3, 0.3, 0.0])


def test_tail_of_coral_is_the_output_of_the_year_before() -> None:
    task = age_task("coral", max_age=3)
    raw = torch.tensor([[0.9, 0.6, 0.7]]).logit()  # P(age > 0), > 1, > 2; the last one is inconsistent
    assert [tail(task, raw, age) for age in (1, 2, 3, 4)] == pytest.approx([0.9, 0.6, 0.6, 0.0])


def test_tail_of_a_regression_is_that_of_a_normal_distribution_half_a_year_below() -> None:
    task = age_task("mae")
    value, std = torch.tensor([20.0, 17.5, 10.0]), torch.tensor([5.0, 3.0, 4.0])
    found = task.tail(torch.zeros(3, 1), value, std, 18).tolist()
    expected = [1 - NormalDist(20, 5).cdf(17.5), 0.5, 1 - NormalDist(10, 4).cdf(17.5)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert normal_tail(value.double().numpy(), std.double().numpy(), 18).tolist() == pytest.approx(expected)


def test_tail_of_an_unknown_deviation_is_unknown() -> None:
    assert math.isnan(tail(age_task("mae"), torch.zeros(1, 1), 18))
    found = normal_tail(np.array([30.0, 30.0]), np.array([math.nan, 0.0]), 18)
    assert math.isnan(found[0]) and found[1] == 1


@pytest.mark.parametrize("name", AGES)
def test_tails_are_further_columns_and_fall_with_the_threshold(name: str) -> None:
    task = age_task(name)
    set_thresholds([task], [18, 25])
    raw = torch.randn(7, task.num_outputs, generator=torch.Generator().manual_seed(0))
    before = age_task(name)
    found, plain = task.predict(raw), before.predict(raw)
    assert list(found) == [*plain, "p_age_from_18", "p_age_from_25"] == list(task.info.columns)
    assert task.info.digits[4:] == (4, 4)
    for column, values in plain.items():
        assert torch.equal(found[column], values) or bool(values.isnan().all())
    if not isinstance(task, Regression):  # without a calibration, it has no deviation
        assert bool((found["p_age_from_18"] >= found["p_age_from_25"]).all())
        assert all(bool(((found[name] >= 0) & (found[name] <= 1)).all()) for name in ("p_age_from_18", "p_age_from_25"))


@pytest.mark.parametrize("given", [[0], [18, 18], [121], [True], [2.5]])
def test_thresholds_out_of_range_or_twice_are_errors(given: list[int]) -> None:
    with pytest.raises(AgeGenderError, match=r"thresholds=\["):
        check_thresholds(given)


def test_thresholds_need_an_age_in_whole_years() -> None:
    other, fractions = age_task("mae"), age_task("mae", limits=[0, 100])
    other.name = "height"
    tasks: list[Task] = [other, fractions]
    for each in tasks:
        with pytest.raises(AgeGenderError, match="needs a task age in whole years"):
            set_thresholds([each], [18])
    set_thresholds(tasks, [])  # none are no matter
    assert tail_column("age", 18) == "p_age_from_18"
