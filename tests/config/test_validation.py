"""Settings are validated by the signatures of the callables that take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from agegender.config.validation import validate_choice, validate_kwargs, validate_type
from agegender.errors import AgeGenderError

# A value of every YAML type, with the hints that accept it.
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
def test_validate_type_accepts_a_value_of_the_hinted_type_only(kind: str, hint: str) -> None:
    value, takers = KINDS[kind]
    if hint in takers:
        validate_type("some.key", value, HINTS[hint])
    else:
        with pytest.raises(AgeGenderError, match=r"^some\.key=.* has the wrong type: \S") as refused:
            validate_type("some.key", value, HINTS[hint])
        assert "\n" not in str(refused.value)


def test_validate_type_refuses_a_value_outside_the_literals() -> None:
    validate_type("padding", "same", Literal["same", "valid"])
    with pytest.raises(AgeGenderError, match="'same' or 'valid'"):
        validate_type("padding", "sane", Literal["same", "valid"])


def test_validate_type_accepts_a_node_with_a_target() -> None:
    validate_type("trainer.profiler", {"_target_": "lightning.pytorch.profilers.SimpleProfiler"}, str | None)


def one(width: int, depth: float = 1.0, *, handed: Any = None) -> None: ...


def other(name: str = "") -> None: ...


def anything(width: int, **options: Any) -> None: ...


def test_validate_kwargs_accepts_keys_of_any_callable() -> None:
    validate_kwargs("model", {"width": 1, "depth": 2.0, "name": "x"}, one, other)


def test_validate_kwargs_refuses_an_unknown_key_with_the_nearest() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.widht is not known; did you mean width\?$"):
        validate_kwargs("model", {"widht": 1}, one, other)


def test_validate_kwargs_refuses_arguments_that_the_code_provides() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.handed is not known"):
        validate_kwargs("model", {"handed": 1}, one, provided=("handed",))


def test_validate_kwargs_names_the_key_of_a_wrong_type() -> None:
    with pytest.raises(AgeGenderError, match=r"^model\.width='3' has the wrong type"):
        validate_kwargs("model", {"width": "3"}, one)


def test_validate_kwargs_accepts_extra_keys_for_a_single_callable_with_kwargs() -> None:
    validate_kwargs("x", {"width": 1, "more": "a"}, anything)
    with pytest.raises(AgeGenderError, match=r"^x\.more"):
        validate_kwargs("x", {"width": 1, "more": "a"}, anything, other)


def test_validate_kwargs_checks_a_class_by_its_init() -> None:
    class Built:
        def __init__(self, size: int):
            self.size = size

    validate_kwargs("x", {"size": 1}, Built)
    with pytest.raises(AgeGenderError, match=r"^x\.self is not known"):
        validate_kwargs("x", {"self": 1}, Built)


def test_validate_choice_refuses_an_unknown_name_with_the_nearest() -> None:
    validate_choice("age.name", "mae", ["mae", "mse"])
    with pytest.raises(AgeGenderError, match=r"^age\.name=mea is not known; did you mean mae\?$"):
        validate_choice("age.name", "mea", ["mae", "huber"])
    with pytest.raises(AgeGenderError, match=r"^age\.name=None is not known; choose from huber, mae$"):
        validate_choice("age.name", None, ["mae", "huber"])
