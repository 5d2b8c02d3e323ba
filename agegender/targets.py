"""What may a config have built? Classes of known libraries; a config may come from somebody else.

Hydra has a list of what is forbidden, which can't be complete; this is a list of what is allowed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agegender.errors import AgeGenderError, require

_TARGET = "_target_"
# What a library calls its own: Lightning's plugins live in its second half.
_HOMES = {"lightning.pytorch.": ("lightning.fabric.",), "optuna.": ("optuna.",)}
_OWN_FUNCTIONS = ("agegender.training.",)  # which build one of several classes
# Builds whatever the file that it reads names by `class_path`.
_REFUSED = ("lightning.pytorch.cli.",)
# What Hydra itself builds before any code of ours runs: its callbacks, its launcher and its sweeper.
_HYDRAS_LIBRARIES = ("agegender.", "hydra.", "hydra_plugins.", "optuna.")
_HYDRAS_NODES = ("hydra.callbacks", "hydra.launcher", "hydra.sweeper")
# In Python's `logging.config`, `()` names anything to call, `class` a handler, and `ext://` any object.
_LOGGERS_LIBRARIES = ("logging.", "colorlog.")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOGGING_NODES = ("hydra.job_logging", "hydra.hydra_logging")


def check_targets(config: Any, libraries: Sequence[str]) -> None:
    """Refuses a config whose `_target_`, at any depth, names no class of the libraries and no function of ours.

    The name is followed to what it leads to: by way of a library's own imports, `library.module.os.mkdir` leads out.
    A name that leads nowhere passes: whoever builds it says so.

    Args:
        config: Plain containers.
        libraries: Packages, each with a dot at its end.

    Raises:
        AgeGenderError: Names the target.
    """
    if isinstance(config, Mapping):
        if config.get(_TARGET) is not None:
            _check_target(str(config[_TARGET]), libraries)
        config = list(config.values())
    if isinstance(config, list | tuple):
        for item in config:
            check_targets(item, libraries)


def _check_target(target: str, libraries: Sequence[str], key: str = _TARGET) -> None:
    names = ", ".join(name[:-1] for name in libraries)
    if not target.startswith(tuple(libraries)):
        raise AgeGenderError(f"{key}: {target} is refused; a config builds from {names} only")
    from hydra.utils import get_object

    try:
        found = get_object(target)
    except Exception:
        return
    homes = (*libraries, *(home for name in libraries for home in _HOMES.get(name, ())))
    home = f"{getattr(found, '__module__', '')}."
    own = inspect.isfunction(found) and home.startswith(_OWN_FUNCTIONS)
    fits = own or (inspect.isclass(found) and home.startswith(homes))
    if not fits or home.startswith(_REFUSED):
        raise AgeGenderError(f"{key}: {target} is refused; it is no class that a config may build from {names}")


@contextmanager
def hydra_builds_only_known_classes() -> Iterator[None]:
    """Has the `hydra` part of every config checked that Hydra composes inside, before Hydra builds anything of it.

    Hydra offers no place for that; the one method through which every config comes is surrounded.

    Raises:
        AgeGenderError: Names the target.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl.load_configuration

    def load_checked(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        config = load(self, *args, **kwargs)
        check_hydra(config)
        return config

    ConfigLoaderImpl.load_configuration = load_checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def check_hydra(config: Any) -> None:
    """Checks the `hydra` part of a composed config.

    Raises:
        AgeGenderError: Names the target.
    """
    from omegaconf import OmegaConf

    for name in _HYDRAS_NODES:
        check_targets(_plain(OmegaConf.select(config, name)), _HYDRAS_LIBRARIES)
    for name in _LOGGING_NODES:
        _check_logging(_plain(OmegaConf.select(config, name)))


def _plain(node: Any) -> Any:
    """Resolves what can be resolved already: an interpolation may stand for a whole node."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(node, DictConfig | ListConfig):
        return node
    raw: Any = OmegaConf.to_container(node, resolve=False)
    plain: dict[Any, Any] = {}
    for key in raw if isinstance(raw, dict) else range(len(raw or ())):
        try:
            plain[key] = _plain(node[key])
        except (OmegaConfBaseException, ValueError):  # `???`, or what Hydra knows only later: a text, then
            plain[key] = raw[key]
    return plain


def _check_logging(node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("()", "class"):
                _check_target(str(value), _LOGGERS_LIBRARIES, str(key))
            elif isinstance(value, str) and value.startswith("ext://"):
                refused = f"{key}: {value} is refused; logging writes to {' or '.join(_STREAMS)} only"
                require(value in _STREAMS, refused)
            _check_logging(value)
