"""Names and formats of metrics in tables."""

from __future__ import annotations

import pytest
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE

from agegender.evaluation.html.metric_format import (
    MetricColumn,
    format_interval,
    format_number,
    metric_column,
    metric_title,
)
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.tasks.info import TaskInfo

NAN = float("nan")


@pytest.mark.parametrize(
    ("task", "metric", "title"),
    [
        (AGE, "mae", "age MAE, years"),
        (HEIGHT, "mse", "height MSE, cm squared"),
        (AGE, "cs5", "CS@5, %"),
        (HEIGHT, "cs2.5", "CS@2.5, %"),
        (AGE, "cs5_whole", "CS@5 of predictions in whole years, %"),
        (SMILE, "acc", "smile accuracy, %"),
        (GENDER, "acc_from_5", "gender accuracy from 5 years of age on, %"),
        (GENDER, "ece", "ECE of p_female"),
        (ETHNICITY, "ece", "ECE of ethnicity confidence"),
    ],
)
def test_metric_title_names_the_task_and_its_unit(task: TaskInfo, metric: str, title: str) -> None:
    named = metric_title(task, metric)
    assert named is not None and named[0] == title


@pytest.mark.parametrize("metric", ["", "css", "cs", "cs5_half", "of_mine"])
def test_metric_title_of_an_unknown_metric_is_none(metric: str) -> None:
    assert metric_title(AGE, metric) is None


def test_number_has_its_decimals_and_no_negative_zero() -> None:
    assert format_number(0.12345, (100, 1)) == "12.3" and format_number(-0.001, (1, 2), "+") == "+0.00"
    assert format_number(NAN, (1, 2)) == format_number(float("inf"), (1, 2)) == "n/a"
    assert format_interval(Estimate(1, 0.5, NAN), (1, 1)) == ("1.0", "n/a")


def test_column_without_its_metric_is_empty() -> None:
    column = metric_column(AGE, "mae", interval=True)
    assert column.header == ("age MAE, years", "95 % interval") and column.cells({}) == ("", "")
    assert column.cells({"age_mae": Estimate(4, 3.5, 4.25)}) == ("4.00", "3.50 to 4.25")
    bias = metric_column(AGE, "bias")
    assert bias == MetricColumn("age_bias", "bias, years", (1, 2), "+") and bias.cells({}) == ("",)
    assert bias.cells({"age_bias": Estimate(1, 0, 2)}) == ("+1.00",)
