"""Descriptions of tasks: plain values there and back, and the wording of predictions."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from helpers.made_predictions import FIVE
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE
from hypothesis import given
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.tasks.info import UNSURE, TaskInfo, read_tasks


def test_description_survives_json() -> None:
    assert read_tasks(json.loads(json.dumps([info.to_dict() for info in FIVE]))) == FIVE


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "ordinal"},
        {"columns": ["p"], "digits": [4, 4]},
        {"columns": ["p", "q"], "digits": [4, 4]},
        {"columns": [3]},
        {"digits": ["4"]},
        {"classes": ["no"]},
        {"kind": "number"},
        {"name": None},
        {"classes": None},
        {"min_confidence": 1.5},
        {"min_confidence": "high"},
        {"more": 1},
        {"classes": ["no", "\ud800"]},  # can't be written to a file
    ],
)
def test_damaged_description_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(AgeGenderError, match="the description of a task is invalid"):
        TaskInfo.from_dict(SMILE.to_dict() | damage)


@pytest.mark.parametrize("saved", [None, 3, "tasks", {"age": {}}, [None], [[]], [3]])
def test_other_values_are_no_descriptions(saved: Any) -> None:
    with pytest.raises(AgeGenderError, match=r"the description of .* is invalid"):
        read_tasks(saved)


def test_columns_of_the_same_name_are_refused() -> None:
    with pytest.raises(AgeGenderError, match="two tasks have a column of the same name"):
        read_tasks([AGE.to_dict(), replace(HEIGHT, columns=("height", "age_std", "h", "i")).to_dict()])


@given(numbers=st.lists(st.floats(), min_size=4, max_size=4))
def test_values_of_a_number_are_finite_or_none(numbers: list[float]) -> None:
    values = AGE.values(dict(zip(AGE.columns, numbers, strict=True)))
    assert tuple(values) == AGE.fields
    assert list(values.values()) == [number if math.isfinite(number) else None for number in numbers]
    assert AGE.describe(values).startswith("unknown") == (not math.isfinite(numbers[0]))


@given(p=st.floats(0, 1) | st.just(math.nan), least=st.floats(0.5, 1))
def test_class_of_two_is_the_likelier_at_or_above_min_confidence(p: float, least: float) -> None:
    info = replace(GENDER, min_confidence=least)
    values = info.values({"p_female": p})
    sure = max(p, 1 - p) >= least
    assert values == {"p_female": None if math.isnan(p) else p, "gender": values["gender"]}
    assert values["gender"] == (("female" if p > 0.5 else "male") if sure else UNSURE)


@given(shares=st.lists(st.floats(0, 1), min_size=5, max_size=5), least=st.floats(0, 1))
def test_class_of_several_is_the_first_likeliest_at_or_above_min_confidence(shares: list[float], least: float) -> None:
    info = replace(ETHNICITY, min_confidence=least)
    columns = dict(zip(info.columns, shares, strict=True))
    values = info.values(columns)
    likeliest = info.classes[shares.index(max(shares))]
    assert values == columns | {"ethnicity": likeliest if max(shares) >= least else UNSURE}
    words = UNSURE if values["ethnicity"] == UNSURE else f"{likeliest} {100 * max(shares):.0f} %"
    assert info.describe(values) == words


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(160.5, 181.0, "171.3 (160.5-181.0)"), (-3.0, 181.0, "171.3 (-3.0 to 181.0)"), (None, 181.0, "171.3")],
)
def test_number_is_described_with_the_decimals_of_its_interval(low: float | None, high: float, text: str) -> None:
    values = {"height": 171.26, "height_std": 7.0, "height_low": low, "height_high": high}
    assert HEIGHT.describe(values) == text
