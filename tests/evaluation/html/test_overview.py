"""The opening of a report: its sentence and its three numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT

from agegender.evaluation.html.data_notes import data_notes
from agegender.evaluation.html.overview import TaskEstimates, big_numbers, of_hundred, overview_sentence
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.tasks.info import TaskInfo


def about(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01)


def measured(task: TaskInfo, *runs: str, **metrics: float) -> tuple[TaskInfo, dict[str, dict[str, Estimate]]]:
    return task, {run: {name: about(value) for name, value in metrics.items()} for run in runs or ("",)}


AGES = measured(AGE, mae=4.24, bias=-0.3, coverage=0.81, cs5=0.7)
GENDERS = measured(GENDER, acc=0.951, answered=0.9)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([AGES, GENDERS], "Off by 4.2 years on average; right about gender for 95 of 100."),
        ([GENDERS], "Right about gender for 95 of 100."),
        (
            [measured(HEIGHT, mae=8.0), measured(ETHNICITY, acc=1.0)],
            "Off by 8.0 cm in height on average; right about ethnicity for 100 of 100.",
        ),
        ([measured(replace(HEIGHT, unit=""), mae=0.5)], "Off by 0.5 in height on average."),
        (
            [(AGE, {"A": {"mae": about(4.2)}, "B": {"mae": about(5.0)}}), measured(GENDER, "B", acc=0.9)],
            "A is off by 4.2 years on average, B 5.0 years; B is right about gender for 90 of 100.",
        ),
        ([(AGE, {})], "No test image has a label of these tasks."),
    ],
)
def test_sentence_is_about_every_task_with_labels(found: TaskEstimates, sentence: str) -> None:
    assert overview_sentence(found) == sentence


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (0.954, "95 of 100"),
        (0.996, "more than 99 of 100"),
        (1.0, "100 of 100"),
        (0.001, "less than 1 of 100"),
        (0, "0 of 100"),
    ],
)
def test_of_hundred_is_all_or_none_only_if_that_is_exact(fraction: float, words: str) -> None:
    assert of_hundred(fraction) == words


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (
            [AGES, GENDERS],
            [
                ("4.2 years", "mean error of age"),
                ("95.1 %", "right about gender"),
                ("70.0 %", "within 5 years of the true age"),
            ],
        ),
        (
            [GENDERS],
            [
                ("95.1 %", "right about gender"),
                ("90.0 %", "answered, not unsure about gender"),
                ("1,234", "test images"),
            ],
        ),
        (
            [measured(HEIGHT, mae=8.0, bias=0.5, coverage=math.nan)],
            [
                ("8.0 cm", "mean error of height"),
                ("1,234", "test images"),
                ("+0.5 cm", "mean of predicted minus true height"),
            ],
        ),
        (
            [measured(task, acc=0.5) for task in (GENDER, ETHNICITY)] + [measured(HEIGHT, mae=1.0), AGES],
            [("50.0 %", "right about gender"), ("50.0 %", "right about ethnicity"), ("1.0 cm", "mean error of height")],
        ),
    ],
)
def test_big_numbers_are_three_and_the_main_metrics_come_first(
    found: TaskEstimates, shown: Sequence[tuple[str, str]]
) -> None:
    assert [(number.value, number.label) for number in big_numbers(found, {"": 1234})] == list(shown)


def test_big_numbers_of_two_runs_stand_side_by_side() -> None:
    numbers = big_numbers([(AGE, {"A": {"mae": about(4.2)}, "B": {"mae": about(5.0)}})], {"A": 10, "B": 12})
    assert [(number.value, number.label, number.detail) for number in numbers] == [
        ("4.2 / 5.0 years", "mean error of age: A / B", "95 % interval 4.2 to 4.2 / 5.0 to 5.0"),
        ("10 / 12", "test images: A / B", ""),
    ]


def test_notes_name_the_data_that_was_used() -> None:
    assert "UTKFace" in " ".join(data_notes(drawn=False, table=None))
    own, drawn = data_notes(drawn=False, table="labels.csv"), data_notes(drawn=True, table="labels.csv")
    assert "labels.csv" in own[0] and not any("UTKFace" in note for note in own)
    assert drawn == ["The faces are synthetic: nothing here applies to real people."]
