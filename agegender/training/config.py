"""Is this configuration right? Every setting is held against the signature of what it will be handed to."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hydra.utils import get_object
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from agegender.cli import nearest
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.synthetic import generate_faces
from agegender.data.transforms import Augment
from agegender.errors import AgeGenderError
from agegender.models.age import AGE_CODINGS
from agegender.models.network import TRUNKS, AgeGenderNet
from agegender.training.build import check_target
from agegender.training.module import warmup_cosine

_TOP_LEVEL: dict[str, Any] = {
    "seed": int,
    "fit": bool,
    "test": bool,
    "resume": str | None,
    "weights": str | None,
    "monitor": str,
    "mode": typing.Literal["min", "max"],
    "name": str,
    "loss": dict[str, float],
}


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses unknown keys and wrong-typed values before any data is read.

    There is no second list of settings to keep in step: the signatures and type hints of our own classes, and of the
    library classes that `_target_` names, are the schema.

    Args:
        config: The composed training config, resolved, as plain containers.

    Raises:
        AgeGenderError: Names the key, and the nearest valid one or the type wanted.
    """
    check_target(config)
    for key, hint in _TOP_LEVEL.items():
        _check_value(key, config[key], hint)
    if set(config["loss"]) != {"age", "gender"}:
        raise AgeGenderError(f"loss has the weights age and gender, not {', '.join(sorted(config['loss']))}")
    _check_call("data", config["data"], AgeGenderDataModule, given=("augment", "seed"))
    _check_call("data.generate", config["data"].get("generate") or {}, generate_faces, given=("folder", "progress"))
    _check_call("augment", config["augment"] or {}, Augment)
    _check_named("age.name", config["age"].get("name"), AGE_CODINGS)
    coding = {key: value for key, value in config["age"].items() if key != "name"}
    _check_call("age", coding, AGE_CODINGS[config["age"]["name"]])
    _check_named("model.trunk", config["model"].get("trunk"), TRUNKS)
    trunk = TRUNKS[config["model"]["trunk"]]
    _check_call("model", config["model"], AgeGenderNet, trunk, given=("age", "in_channels", "image_size"))
    _check_call("optim.schedule", config["optim"].get("schedule") or {}, warmup_cosine, given=("step", "steps"))
    _check_built("optim.optimizer", config["optim"]["optimizer"], given=("params",))
    _check_built("trainer", config["trainer"], given=("callbacks", "logger"))
    for group in ("callbacks", "logger"):
        for name, node in (config[group] or {}).items():
            if node is not None:
                _check_built(f"{group}.{name}", node)


def _check_named(key: str, name: object, choices: Iterable[str]) -> None:
    if name not in list(choices):
        raise AgeGenderError(f"{key}={name} is not known; {nearest(str(name), choices)}")


def _check_built(where: str, node: Mapping[str, Any], given: tuple[str, ...] = ()) -> None:
    """Checks a node that names its class by `_target_`."""
    target = node.get("_target_")
    if target is None:
        raise AgeGenderError(f"{where} has no _target_: name the class to build")
    try:
        built = get_object(target)
    except Exception as error:
        raise AgeGenderError(f"{where}._target_={target} can't be imported: {' '.join(str(error).split())}") from None
    _check_call(where, {key: value for key, value in node.items() if not key.startswith("_")}, built, given=given)


def _check_call(where: str, node: Mapping[str, Any], *callables: Callable[..., Any], given: tuple[str, ...] = ()) -> None:
    """Checks a node whose entries become keyword arguments of one of the callables.

    Args:
        where: The node's place in the config, for the messages.
        node: Keyword arguments.
        callables: Each entry must be an argument of one of them; a single one may take any (`**kwargs`).
        given: Arguments that the code provides; the config may not.
    """
    hints: dict[str, Any] = {}
    takes_anything = False
    for called in callables:
        function = called.__init__ if inspect.isclass(called) else called
        known = _type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_anything = len(callables) == 1
            elif name not in ("self", *given):
                hints[name] = known.get(name, Any)
    for key, value in node.items():
        if key in hints:
            _check_value(f"{where}.{key}", value, hints[key])
        elif not takes_anything:
            raise AgeGenderError(f"{where}.{key} is not known; {nearest(key, hints)}")


def _type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # a library hides some of its types from run time: its own checks must do
        return {}


def _check_value(where: str, value: Any, hint: Any) -> None:
    if isinstance(value, Mapping) and "_target_" in value:
        return  # an object still to be built
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
