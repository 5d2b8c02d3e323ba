"""The allow-list: what a config or a checkpoint may have built by `_target_`, and of which type it must be.

Hydra keeps a list of what is forbidden, which can't be complete. This is a list of what is allowed (see
`agegender.config.trust`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agegender.config.hydra_versions import allow_list
from agegender.config.trust import BUILT_IN, add_working_dir, extensions, refusal
from agegender.errors import AgeGenderError, require

_TARGET = "_target_"
# What a library calls its own: Lightning's plugins live in its second half.
_HOMES = {"lightning.pytorch.": ("lightning.fabric.",)}
_OWN_FUNCTIONS = ("agegender.training.",)  # which build one of several classes
# Builds whatever the file that it reads names by `class_path`.
_REFUSED = ("lightning.pytorch.cli.",)


class NodeType(NamedTuple):
    """What a node of the config must be.

    Attributes:
        base: The class that it must derive from.
        methods: Methods and properties that its class must have.
        attributes: What the object must have, once built.
    """

    base: str = "builtins.object"
    methods: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


# By the node's place in the config; `callbacks` and `logger` hold any number of such nodes.
NODE_TYPES = {
    "data": NodeType(
        "lightning.pytorch.LightningDataModule",
        ("find_index", "index", "split", "split_settings", "channels"),
        ("image_size", "batch_size", "cache_dir", "table", "synthetic"),
    ),
    "model.trunk": NodeType("torch.nn.Module", ("forward",), ("num_features",)),
    "age": NodeType(methods=("layer", "loss", "decode", "spread", "label"), attributes=("outputs", "classes")),
    "augment": NodeType(methods=("__call__",)),
    "optim.optimizer": NodeType("torch.optim.Optimizer"),
    "optim.scheduler": NodeType("torch.optim.lr_scheduler.LRScheduler"),
    "callbacks": NodeType("lightning.pytorch.callbacks.Callback"),
    "logger": NodeType("lightning.pytorch.loggers.Logger"),
    "trainer": NodeType("lightning.pytorch.Trainer"),
}


def instantiate(node: Mapping[str, Any], place: str, /, *args: Any, **kwargs: Any) -> Any:
    """Builds the object that a node of a config or of a checkpoint names by `_target_`, from plain values.

    Containers arrive as lists and dicts (`_convert_="all"`): OmegaConf's own types would drag the whole config into an
    optimizer's state and so into checkpoints.

    Args:
        node: `_target_` and arguments; nodes in it are built first.
        place: What it is for, see `NODE_TYPES`.
        args: Further arguments, before those of the node.
        kwargs: Further arguments.

    Raises:
        AgeGenderError: The class, or one in the node, is not allowed, is of another type, can't be imported, or refuses
            its arguments.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    check_instantiable(node, place)
    resolve(node, place)
    partial = node.get("_partial_") and not place.startswith("optim.")  # whose first argument comes later
    require(not partial, f"{place}._partial_ is refused: {place} is built at once")
    try:
        built = instantiate(dict(node), *args, _convert_="all", **allow_list(_homes()), **kwargs)
    except Exception as error:  # what the class raised: Hydra 1.3 hides it in an exception of its own, 1.4 passes it on
        cause = (error.__cause__ if isinstance(error, InstantiationException) else None) or error
        if isinstance(cause, AgeGenderError):
            raise cause from None
        raise refuses_settings(node, cause) from error
    if not node.get("_partial_"):
        check_built(built, place)
    return built


def refuses_settings(node: Mapping[str, Any], reason: object) -> AgeGenderError:
    """Returns the error for a class that doesn't take its arguments."""
    return AgeGenderError(f"{node[_TARGET]} can't be built with these settings: {' '.join(str(reason).split())}")


def check_built(built: object, place: str) -> None:
    """Refuses an object that is not what its node is for; see `NODE_TYPES`."""
    from hydra.utils import get_object

    wanted = NODE_TYPES[place]
    fits = isinstance(built, get_object(wanted.base))
    require(fits, f"{place}: {type(built).__name__} is no {wanted.base}, which this part must be")
    lacking = [name for name in wanted.attributes if not hasattr(built, name)]
    require(not lacking, f"{place}: {type(built).__name__} lacks {', '.join(lacking)}; see docs/extending.md")


def resolve(node: Mapping[str, Any], place: str, where: str = "") -> Callable[..., Any]:
    """Returns the class, or the function that builds one, that a node names; see `build`.

    The name's package is checked before anything is imported, the type afterwards.

    Args:
        node: With `_target_`.
        place: What it is for, see `NODE_TYPES`.
        where: The node's own place, for messages, such as `callbacks.mine`; `place` unless given.

    Raises:
        AgeGenderError: See `build`.
    """
    from hydra.utils import get_object

    key = f"{where or place}.{_TARGET}"
    named = isinstance(node, Mapping) and node.get(_TARGET) is not None
    require(named, f"{where or place}={node} has no {_TARGET}: name the class to build")
    target = str(node[_TARGET])
    check_target(target, None, key)
    try:
        found: Callable[..., Any] = get_object(target)
    except Exception as error:
        hint = "; install it, or add its folder to PYTHONPATH" if isinstance(error.__cause__, ImportError) else ""
        raise AgeGenderError(f"{key}={target} can't be imported: {' '.join(str(error).split())}{hint}") from None
    if inspect.isclass(found):
        wanted = NODE_TYPES[place]
        fits = issubclass(found, get_object(wanted.base))
        require(fits, f"{key}: {target} is refused; it is no {wanted.base}, which {place} must be")
        members = {name for base in found.__mro__ for name in vars(base)}
        lacking = [name for name in wanted.methods if name not in members]
        require(not lacking, f"{key}: {target} is refused; it lacks {', '.join(lacking)}: see docs/extending.md")
    return found


def accepted_kwargs(called: Callable[..., Any], **values: Any) -> dict[str, Any]:
    """Returns those of the values that a class or function has arguments for: all, if it takes any (`**kwargs`)."""
    known = inspect.signature(called).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in values.items() if takes_any or name in known}


def kwargs_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a node's arguments: all but `_target_` and the like."""
    return {key: value for key, value in node.items() if not key.startswith("_")}


def check_instantiable(node: Mapping[str, Any], place: str = "") -> None:
    """Refuses a node that must not be built: see `check_allowed`, and a `${...}` that is left in a text.

    Hydra would read it once more, after the check, and what it stands for may be anything to build.
    """
    check_allowed(node, where=place)
    for text in _texts(node):
        require("${" not in text, f"{node.get(_TARGET)}: {text!r} can't be used: `${{` begins an interpolation")


def check_allowed(config: Any, libraries: Sequence[str] | None = None, where: str = "") -> None:
    """Refuses a config whose `_target_`, at any depth, names no class of trusted packages and no function of ours.

    The name is followed to what it leads to: by way of a library's own imports, `library.module.os.mkdir` leads out.
    A name that leads nowhere passes: whoever builds it says so. Nothing is imported before all names are checked.

    Args:
        config: Plain containers.
        libraries: Packages, each with a dot at its end; None for the built-in ones. Those that a person or an installed
            plug-in vouches for are trusted with either.
        where: Its place, for messages.

    Raises:
        AgeGenderError: Names the target; says how to trust its package.
    """
    found = list(_targets(config, where))
    for key, target in found:
        _check_package(target, libraries, key)
    for key, target in found:
        _check_home(target, libraries, key)


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
    """Refuses one name; see `check_allowed`."""
    _check_package(target, libraries, key)
    _check_home(target, libraries, key)


def _check_package(target: str, libraries: Sequence[str] | None, key: str) -> None:
    """Refuses a name outside the trusted packages; imports nothing."""
    if target.startswith(tuple(BUILT_IN if libraries is None else libraries)) or target.startswith(extensions()):
        return
    if libraries is None:
        raise refusal(key, target)
    names = ", ".join(name[:-1] for name in libraries)
    raise AgeGenderError(f"{key}: {target} is refused; a config builds from {names} only")


def _check_home(target: str, libraries: Sequence[str] | None, key: str) -> None:
    """Refuses a name that leads to anything but a class, or a permitted function, of the trusted packages."""
    from hydra.utils import get_object

    more = extensions()
    if target.startswith(more):
        add_working_dir()
    try:
        found = get_object(target)
    except Exception:
        return
    homes = _homes(libraries)
    home = f"{getattr(found, '__module__', '')}."
    own = inspect.isfunction(found) and home.startswith((*_OWN_FUNCTIONS, *more))
    fits = own or (inspect.isclass(found) and home.startswith(homes))
    if not fits or home.startswith(_REFUSED):
        names = ", ".join(name[:-1] for name in (*(BUILT_IN if libraries is None else libraries), *more))
        raise AgeGenderError(f"{key}: {target} is refused; it is no class that a config may build from {names}")


def _homes(libraries: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the packages, each with a dot at its end, that the classes of trusted packages may lie in."""
    libraries = BUILT_IN if libraries is None else libraries
    return (*libraries, *(home for name in libraries for home in _HOMES.get(name, ())), *extensions())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
