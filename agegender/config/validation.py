"""Do settings fit what they will be handed to? The signatures of the code are the only schema there is."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from agegender.errors import AgeGenderError, did_you_mean, require


def validate_kwargs(
    where: str, node: Mapping[str, Any], *callables: Callable[..., Any], given: tuple[str, ...] = ()
) -> None:
    """Checks a node whose entries become keyword arguments of one of the callables.

    Args:
        where: The node's place in the config, for the messages.
        node: Keyword arguments.
        callables: Each entry must be an argument of one of them; a single one may take any (`**kwargs`).
        given: Arguments that the code provides; the config may not.

    Raises:
        AgeGenderError: Names a missing key, an unknown one and the nearest known, or a wrong-typed value.
    """
    hints: dict[str, Any] = {}
    required: list[str] = []
    takes_anything = False
    for called in callables:
        function = called.__init__ if inspect.isclass(called) else called
        known = _type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_anything = len(callables) == 1
            elif name not in ("self", *given):
                hints[name] = known.get(name, Any)
                if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
                    required.append(name)
    for key, value in node.items():
        if key in hints:
            validate_type(_place(where, key), value, hints[key])
        elif not takes_anything:
            raise AgeGenderError(f"{_place(where, key)} is not known; {did_you_mean(key, hints)}")
    for name in required:
        require(name in node, f"{_place(where, name)} is missing: it has no default")


def validate_choice(key: str, name: object, choices: Iterable[str]) -> None:
    """Refuses a name that is not among the choices."""
    if name not in list(choices):
        raise AgeGenderError(f"{key}={name} is not known; {did_you_mean(str(name), choices)}")


def _place(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # a library hides some of its types from run time: its own checks must do
        return {}


def validate_type(where: str, value: Any, hint: Any) -> None:
    """Refuses a value that is not of the hinted type; a node with `_target_`, or a list of such, is still to be built.

    Raises:
        AgeGenderError: Names the key, the value and the type wanted.
    """
    nodes = value if isinstance(value, list) else [value]
    if any(isinstance(node, Mapping) and "_target_" in node for node in nodes):
        return
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type that pydantic knows no rules for, such as a dataclass of a library
        return
    candidates = [value, tuple(value)] if isinstance(value, list) else [value]  # YAML has no tuples
    for candidate in candidates:
        try:
            adapter.validate_python(candidate, strict=True)
            return
        except ValidationError as error:
            problem = error
    wanted = "; or ".join(dict.fromkeys(detail["msg"] for detail in problem.errors()[:3]))
    raise AgeGenderError(f"{where}={value!r} has the wrong type: {wanted[0].lower()}{wanted[1:]}")
