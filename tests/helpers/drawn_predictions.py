"""Strategies of hypothesis: tasks of any kind and names, and predictions with any values."""

from __future__ import annotations

import os
from typing import Any, get_args

from hypothesis import strategies as st

from agegender.prediction.prediction import Prediction, columns_of
from agegender.tasks.info import UNSURE, Kind, TaskInfo

# A name is any bytes but NUL; Python hands over those that are not UTF-8 as lone surrogates.
PATHS = (st.text(min_size=1) | st.binary(min_size=1).map(os.fsdecode)).filter(lambda path: "\0" not in path)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)


@st.composite
def tasks_of(draw: st.DrawFn) -> tuple[TaskInfo, ...]:
    """Draws one to four tasks of any kind with arbitrary names, whose columns are different."""
    tasks: list[TaskInfo] = []
    taken = {*columns_of(()), UNSURE}
    for _ in range(draw(st.integers(1, 4))):
        kind, name = draw(st.sampled_from(get_args(Kind))), draw(NAMES)
        count = {"number": 0, "binary": 2, "classes": draw(st.integers(2, 4))}[kind]
        classes = tuple(draw(st.lists(NAMES, min_size=count, max_size=count, unique=True)))
        ends = {"number": ["", "_std", "_low", "_high"], "binary": ["_p"]}.get(kind, [f"_p_{each}" for each in classes])
        columns = tuple(f"{name}{end}" for end in ends)
        digits = draw(st.lists(st.none() | st.integers(0, 4), min_size=len(columns), max_size=len(columns)))
        info = TaskInfo(name, kind, name, columns, tuple(digits), classes)
        if not taken & {*info.fields}:
            taken |= {*info.fields}
            tasks.append(info)
    return tuple(tasks)


@st.composite
def answered(draw: st.DrawFn, tasks: tuple[TaskInfo, ...]) -> Prediction:
    """Draws a prediction with any values of the tasks."""
    left, top, right, bottom = (draw(st.none() | st.floats(0, 5000)) for _ in range(4))
    score = draw(st.none() | st.floats(0, 1))
    values: dict[str, Any] = {}
    for info in tasks:
        numbers = st.none() | (st.floats(-1e6, 1e6) if info.kind == "number" else st.floats(0, 1))
        values |= {column: draw(numbers) for column in info.columns}
        values |= {info.name: draw(st.sampled_from([*info.classes, UNSURE]))} if info.classes else {}
    return Prediction(draw(PATHS), draw(st.integers(1, 9)), left, top, right, bottom, score, values)
