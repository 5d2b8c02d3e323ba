"""Validation of settings against the signatures of the classes and functions that take them, the only schema."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from agegender.errors import AgeGenderError, did_you_mean, require

# Arguments that the code passes itself, by the config node whose other arguments they stand beside; a config can't set
# them.
PROVIDED: dict[str, tuple[str, ...]] = {
    "data": ("augment", "seed", "labels"),
    "data.synthetic": ("folder", "progress"),
    "loss": ("weights", "rows", "targets", "teachers"),
    "model": ("tasks", "in_channels", "image_size"),
    "model.trunk": ("in_channels", "image_size"),
    "optim.optimizer": ("params",),
    "optim.scheduler": ("optimizer", "total_steps"),
    "trainer": ("callbacks", "logger"),
}


def validate_kwargs(
    where: str, node: Mapping[str, Any], *callables: Callable[..., Any], provided: tuple[str, ...] | None = None
) -> None:
    """Check a config node whose entries become keyword arguments of the callables.

    Args:
        where: Dotted key of the node, for messages; empty for the root.
        node: Keyword arguments.
        callables: Functions or classes. Each entry must be an argument of one of them; with a single callable that has
            `**kwargs`, any entry is valid.
        provided: Arguments that the code passes itself; None for those of `PROVIDED`.

    Raises:
        AgeGenderError: A key is missing or unknown, or a value has the wrong type; the message names it.
    """
    hints: dict[str, Any] = {}
    required: list[str] = []
    passed = PROVIDED.get(where, ()) if provided is None else provided
    takes_any_key = False
    for called in callables:
        function = called.__init__ if inspect.isclass(called) else called
        type_hints = _type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_any_key = len(callables) == 1
            elif name not in ("self", *passed):
                hints[name] = type_hints.get(name, Any)
                if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
                    required.append(name)
    for key, value in node.items():
        if key in hints:
            validate_type(_dotted_key(where, key), value, hints[key])
        elif not takes_any_key:
            raise AgeGenderError(f"{_dotted_key(where, key)} is not known; {did_you_mean(key, hints)}")
    for name in required:
        require(name in node, f"{_dotted_key(where, name)} is missing: it has no default")


def parameter_hints(called: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Return the type hints of a function's or a class's arguments, and whether it takes others, too.

    The arguments of a base class count if the class's constructor has `**kwargs`.
    """
    functions = (
        [vars(base)["__init__"] for base in inspect.getmro(called)[:-1] if "__init__" in vars(base)]
        if inspect.isclass(called)
        else [called]
    )
    hints: dict[str, Any] = {}
    for function in functions:
        known = _type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        hints = {each.name: known.get(each.name, Any) for each in named if each.name != "self"} | hints
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return hints, False
    return hints, bool(functions)


def validate_choice(key: str, name: object, choices: Iterable[str]) -> None:
    """Raise `AgeGenderError` if a name is not among the choices."""
    if name not in list(choices):
        raise AgeGenderError(f"{key}={name} is not known; {did_you_mean(str(name), choices)}")


def _dotted_key(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # types imported under TYPE_CHECKING: the library must check such arguments itself
        return {}


def validate_type(where: str, value: Any, hint: Any) -> None:
    """Check that a value has the hinted type.

    A node with `_target_`, or a list that contains one, passes: its object is built later.

    Args:
        where: Dotted key of the value, for messages.
        value: A plain value or container.
        hint: Type hint.

    Raises:
        AgeGenderError: The value has another type; the message names the key, the value and the type.
    """
    nodes = value if isinstance(value, list) else [value]
    if any(isinstance(node, Mapping) and "_target_" in node for node in nodes):
        return
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type without a pydantic schema, such as a dataclass of a library
        return
    candidates = [value, tuple(value)] if isinstance(value, list) else [value]  # YAML has no tuples
    for candidate in candidates:
        try:
            adapter.validate_python(candidate, strict=True)
            return
        except ValidationError as error:
            problem = error
    expected = "; or ".join(dict.fromkeys(detail["msg"] for detail in problem.errors()[:3]))
    raise AgeGenderError(f"{where}={value!r} has the wrong type: {expected[0].lower()}{expected[1:]}")
