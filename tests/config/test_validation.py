"""Settings are held against the signatures of what they are handed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from agegender.config.validation import validate_choice, validate_kwargs, validate_type
from agegender.errors import AgeGenderError

# A value of every kind that YAML knows, with the hints that take it.
KINDS: dict[str, tuple[Any, set[str]]] = {
    "text": ("abc", {"str", "str | None"}),
    "whole number": (3, {"int", "float"}),
    "number": (0.5, {"float"}),
    "switch": (True, {"bool"}),
    "nothing": (None, {"str | None"}),
    "list of whole numbers": ([1, 2], {"list[int]", "Sequence[int]", "tuple[int, int]"}),
    "list of texts": (["a"], set()),
    "mapping": ({"a": 1}, {"dict[str, Any]"}),
}
HINTS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "str | None": str | None,
    "list[int]": list[int],
    "Sequence[int]": Sequence[int],
    "tuple[int, int]": tuple[int, int],
    "dict[str, Any]": dict[str, Any],
}


@pytest.mark.parametrize("hint", sorted(HINTS))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_value_is_taken_by_exactly_the_types_that_it_has(kind: str, hint: str) -> None:
    value, takers = KINDS[kind]
    if hint in takers:
        validate_type("some.key", value, HINTS[hint])
    else:
        with pytest.raises(AgeGenderError, match=r"^some\.key=.* has the wrong type: \S") as refused:
            validate_type("some.key", value, HINTS[hint])
        assert "\n" not in str(refused.value)


def test_a_name_outside_the_literals_is_refused() -> None:
    validate_type("padding", "same", Literal["same", "valid"])
    with pytest.raises(AgeGenderError, match="'same' or 'valid'"):
        validate_type("padding", "sane", Literal["same", "valid"])


def test_an_object_still_to_be_built_passes() -> None:
    validate_type("trainer.profiler", {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}, str | None)


def one(width: int, depth: float = 1.0, *, handed: Any = None) -> None: ...


def other(name: str = "") -> None: ...


def anything(width: int, **options: Any) -> None: ...


def test_keys_of_any_of_the_callables_are_known() -> None:
    validate_kwargs("model", {"width": 1, "depth": 2.0, "name": "x"}, one, other)


def test_an_unknown_key_is_refused_with_its_place_and_the_nearest() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.widht is not known; did you mean width\?$"):
        validate_kwargs("model", {"widht": 1}, one, other)


def test_what_the_code_hands_over_can_not_be_set() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.handed is not known"):
        validate_kwargs("model", {"handed": 1}, one, provided=("handed",))


def test_a_wrong_type_names_the_place() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.width='3' has the wrong type"):
        validate_kwargs("model", {"width": "3"}, one)


def test_further_arguments_pass_only_where_a_single_callable_takes_any() -> None:
    validate_kwargs("x", {"width": 1, "more": "a"}, anything)
    with pytest.raises(AgeGenderError, match=r"^x\.more"):
        validate_kwargs("x", {"width": 1, "more": "a"}, anything, other)


def test_a_class_is_checked_by_its_init() -> None:
    class Built:
        def __init__(self, size: int):
            self.size = size

    validate_kwargs("x", {"size": 1}, Built)
    with pytest.raises(AgeGenderError, match=r"^x\.self is not known"):
        validate_kwargs("x", {"self": 1}, Built)


def test_a_name_that_is_no_choice_is_refused_with_the_nearest() -> None:
    validate_choice("age.name", "mae", ["mae", "mse"])
    with pytest.raises(AgeGenderError, match=r"^age\.name=mea is not known; did you mean mae\?$"):
        validate_choice("age.name", "mea", ["mae", "huber"])
    with pytest.raises(AgeGenderError, match=r"^age\.name=None is not known; there are huber, mae$"):
        validate_choice("age.name", None, ["mae", "huber"])
