"""The labels that tasks need, from their settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

from agegender.errors import AgeGenderError
from agegender.tasks.labels import labels_of


def test_labels_of_tasks_are_their_columns_with_classes_or_none_for_a_number() -> None:
    tasks: dict[str, dict[str, Any]] = {
        "age": {"label": "age", "weight": 1.0},
        "gender": {"_target_": "agegender.tasks.Binary", "label": "gender", "classes": ["male", "female"]},
        "again": {"label": "gender", "classes": ("male", "female"), "weight": 0.1},
        "mood": {"label": "face mood", "classes": ["sad", "calm", "happy"]},
    }
    expected = {"age": None, "gender": ["male", "female"], "face mood": ["sad", "calm", "happy"]}
    assert labels_of(tasks) == expected and list(labels_of(tasks)) == list(expected)
    assert labels_of({}) == {}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, r"^tasks\.smile\.label=None must be the name of a label$"),
        ({"label": ""}, r"tasks\.smile\.label= must be the name of a label"),
        ({"label": ["a"]}, r"tasks\.smile\.label=\['a'\] must be the name of a label"),
        ({"label": "smile", "classes": [False, True]}, r"classes=\[False, True\] must be a list of names: quote words"),
        ({"label": "smile", "classes": "no, yes"}, r"classes=no, yes must be a list of names"),
        ({"label": "smile", "classes": [0, 1]}, r"classes=\[0, 1\] must be a list of names: .* numbers such as '1'"),
        ({"label": "smile", "classes": ["no"]}, r"classes=\['no'\] must be two or more different names"),
        ({"label": "smile", "classes": ["no", " NO"]}, "must be two or more different names"),
        ({"label": "smile", "classes": ["no", " "]}, "must be two or more different names"),
        ({"label": "gender"}, r"classes=None: another task gives gender the classes \['male', 'female'\]"),
        ({"label": "gender", "classes": ["a", "b"]}, r"classes=\['a', 'b'\]: another task gives gender the classes"),
    ],
)
def test_task_without_a_usable_label_is_refused_in_one_line(node: Any, message: str) -> None:
    with pytest.raises(AgeGenderError, match=message) as caught:
        labels_of({"gender": {"label": "gender", "classes": ["male", "female"]}, "smile": node})
    assert "\n" not in str(caught.value)


def test_labels_of_tasks_need_no_torch() -> None:
    probe = "import sys, agegender.tasks.labels; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
