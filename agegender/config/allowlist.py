"""The allow-list: which `_target_` a config or a checkpoint may instantiate, and the type that each node requires.

Hydra's own deny-list can't be complete. The allowed packages are listed in `agegender.config.trust`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agegender.config.hydra_versions import allow_list
from agegender.config.trust import BUILT_IN, add_working_dir, extensions, refusal
from agegender.errors import AgeGenderError, require

_TARGET = "_target_"
# Packages in which classes of an allowed package may be defined: `lightning.pytorch` exports plugins of Fabric.
_DEFINING_PACKAGES = {"lightning.pytorch.": ("lightning.fabric.",)}
_FACTORY_PACKAGES = ("agegender.training.",)  # packages whose functions, too, may be a `_target_`: they build objects
# LightningCLI instantiates any `class_path` of the files that it reads.
_DENIED = ("lightning.pytorch.cli.",)


class NodeType(NamedTuple):
    """The required type of a config node's object.

    Attributes:
        base: Dotted name of the base class.
        methods: Methods and properties that its class must have.
        attributes: Attributes that the instantiated object must have.
    """

    base: str = "builtins.object"
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


# By dotted key in the config; `callbacks` and `logger` contain any number of such nodes.
NODE_TYPES = {
    "data": NodeType(
        "lightning.pytorch.LightningDataModule",
        ("find_index", "index", "split", "split_settings", "channels"),
        ("image_size", "batch_size", "cache_dir", "table", "synthetic"),
    ),
    "model.trunk": NodeType("torch.nn.Module", ("forward",), ("num_features",)),
    "tasks": NodeType("agegender.tasks.task.Task", attributes=("num_outputs",)),
    "augment": NodeType(methods=("__call__",)),
    "optim.optimizer": NodeType("torch.optim.Optimizer"),
    "optim.scheduler": NodeType("torch.optim.lr_scheduler.LRScheduler"),
    "callbacks": NodeType("lightning.pytorch.callbacks.Callback"),
    "logger": NodeType("lightning.pytorch.loggers.Logger"),
    "trainer": NodeType("lightning.pytorch.Trainer"),
}


def instantiate(node: Mapping[str, Any], place: str, /, *args: Any, **kwargs: Any) -> Any:
    """Instantiate the `_target_` of a config's or a checkpoint's node.

    Containers are passed as lists and dicts (`_convert_="all"`): OmegaConf's types refer to the whole config, which
    would end up in the optimizer's state and in checkpoints.

    Args:
        node: `_target_` and arguments; nested nodes are instantiated first.
        place: Key in `NODE_TYPES`.
        args: Further positional arguments, before those of the node.
        kwargs: Further keyword arguments.

    Raises:
        AgeGenderError: The class, or one of a nested node, is not allowed, has the wrong type, can't be imported, or
            raises an error for its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    check_instantiable(node, place)
    resolve(node, place)
    # Optimizers and schedulers get their first argument later.
    partial = node.get("_partial_") and not place.startswith("optim.")
    require(not partial, f"{place}._partial_ can't be used: {place} is instantiated at once. Remove it")
    try:
        built = instantiate(dict(node), *args, _convert_="all", **allow_list(_allowed_packages()), **kwargs)
    except Exception as error:  # raised by the class: Hydra 1.3 wraps it in InstantiationException, 1.4 doesn't
        cause = (error.__cause__ if isinstance(error, InstantiationException) else None) or error
        if isinstance(cause, AgeGenderError):
            raise cause from None
        raise refuses_settings(node, cause) from error
    if not node.get("_partial_"):
        check_built(built, place)
    return built


def refuses_settings(node: Mapping[str, Any], reason: object) -> AgeGenderError:
    """Return the error for a class that raised `reason` for its arguments."""
    return AgeGenderError(f"{node[_TARGET]} can't be built with these settings: {' '.join(str(reason).split())}")


def check_built(built: object, place: str) -> None:
    """Raise `AgeGenderError` if an instantiated object is not of the type that `NODE_TYPES` requires."""
    from hydra.utils import get_object

    node_type = NODE_TYPES[place]
    fits = isinstance(built, get_object(node_type.base))
    require(fits, f"{place}: {type(built).__name__} is not a {node_type.base}; give an object of that type")
    missing = [name for name in node_type.attributes if not hasattr(built, name)]
    require(not missing, f"{place}: {type(built).__name__} has no {', '.join(missing)}; see docs/extending.md")


def resolve(node: Mapping[str, Any], place: str, where: str = "") -> Callable[..., Any]:
    """Import and return the class, or the factory function, of a node's `_target_`.

    The package is checked before anything is imported, the type afterwards.

    Args:
        node: A node with `_target_`.
        place: Key in `NODE_TYPES`.
        where: Dotted key of the node, for messages, such as `callbacks.mine`; by default `place`.

    Raises:
        AgeGenderError: The target is missing, not allowed, of the wrong type, or can't be imported.
    """
    from hydra.utils import get_object

    key = f"{where or place}.{_TARGET}"
    has_target = isinstance(node, Mapping) and node.get(_TARGET) is not None
    require(has_target, f"{where or place}={node} has no {_TARGET}: name the class to build")
    target = str(node[_TARGET])
    check_target(target, None, key)
    try:
        found: Callable[..., Any] = get_object(target)
    except Exception as error:
        hint = "; install it, or add its folder to PYTHONPATH" if isinstance(error.__cause__, ImportError) else ""
        raise AgeGenderError(f"{key}={target} can't be imported: {' '.join(str(error).split())}{hint}") from None
    if inspect.isclass(found):
        node_type = NODE_TYPES[place]
        fits = issubclass(found, get_object(node_type.base))
        require(fits, f"{key}: {target} is refused; it is not a subclass of {node_type.base}, which {place} requires")
        members = {name for base in found.__mro__ for name in vars(base)}
        missing = [name for name in node_type.methods if name not in members]
        require(not missing, f"{key}: {target} is refused; it has no {', '.join(missing)}: see docs/extending.md")
    return found


def accepted_kwargs(called: Callable[..., Any], **values: Any) -> dict[str, Any]:
    """Return the values that a class or function has arguments for; all of them if it has `**kwargs`."""
    parameters = inspect.signature(called).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in values.items() if takes_any or name in parameters}


def kwargs_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a node: its entries except `_target_` and other keys that begin with an underscore."""
    return {key: value for key, value in node.items() if not key.startswith("_")}


def check_instantiable(node: Mapping[str, Any], place: str = "") -> None:
    """Check that a node may be instantiated: `check_allowed`, and no string contains `${`.

    Hydra would resolve such an interpolation after the check, possibly to a node with any `_target_`.

    Raises:
        AgeGenderError: A target is not allowed, or a string contains `${`.
    """
    check_allowed(node, where=place)
    for text in _strings(node):
        require("${" not in text, f"{node.get(_TARGET)}: {text!r} can't be used: `${{` begins an interpolation")


def check_allowed(config: Any, libraries: Sequence[str] | None = None, where: str = "") -> None:
    """Check that every `_target_` in a config, at any depth, is a class, or a factory function, of an allowed package.

    Names are resolved to the object itself, because a library's imports lead out of it: `library.module.os.mkdir` is
    refused. A name that can't be resolved passes; its instantiation raises the error. Nothing is imported before the
    packages of all names were checked.

    Args:
        config: Plain containers.
        libraries: Allowed packages, each with a trailing dot; None for the built-in ones. Packages trusted by the user
            and packages of installed plug-ins are always allowed as well.
        where: Dotted key of `config`, for messages.

    Raises:
        AgeGenderError: A target is not allowed; the message names it and the setting that trusts its package.
    """
    found = list(_targets(config, where))
    for key, target in found:
        _check_package(target, libraries, key)
    for key, target in found:
        _check_resolved(target, libraries, key)


def _targets(config: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping):
        if config.get(_TARGET) is not None:
            yield (f"{where}.{_TARGET}" if where else _TARGET), str(config[_TARGET])
        for key, value in config.items():
            yield from _targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(config, list | tuple):
        for item in config:
            yield from _targets(item, where)


def check_target(target: str, libraries: Sequence[str] | None, key: str) -> None:
    """Check a single target; see `check_allowed`."""
    _check_package(target, libraries, key)
    _check_resolved(target, libraries, key)


def _check_package(target: str, libraries: Sequence[str] | None, key: str) -> None:
    """Raise `AgeGenderError` if a target is outside the allowed packages; import nothing."""
    if target.startswith(tuple(BUILT_IN if libraries is None else libraries)) or target.startswith(extensions()):
        return
    if libraries is None:
        raise refusal(key, target)
    names = ", ".join(name[:-1] for name in libraries)
    raise AgeGenderError(f"{key}: {target} is refused; a config may only use classes of {names}")


def _check_resolved(target: str, libraries: Sequence[str] | None, key: str) -> None:
    """Raise `AgeGenderError` if a target resolves to anything but a class, or a factory, of the allowed packages."""
    from hydra.utils import get_object

    trusted = extensions()
    if target.startswith(trusted):
        add_working_dir()
    try:
        found = get_object(target)
    except Exception:
        return
    module = f"{getattr(found, '__module__', '')}."
    is_factory = inspect.isfunction(found) and module.startswith((*_FACTORY_PACKAGES, *trusted))
    is_allowed = is_factory or (inspect.isclass(found) and module.startswith(_allowed_packages(libraries)))
    if not is_allowed or module.startswith(_DENIED):
        names = ", ".join(name[:-1] for name in (*(BUILT_IN if libraries is None else libraries), *trusted))
        raise AgeGenderError(f"{key}: {target} is refused; it is not a class of {names}")


def _allowed_packages(libraries: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the packages, each with a trailing dot, in which a target's class may be defined."""
    libraries = BUILT_IN if libraries is None else libraries
    defining = (package for name in libraries for package in _DEFINING_PACKAGES.get(name, ()))
    return (*libraries, *defining, *extensions())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)
