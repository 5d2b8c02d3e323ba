"""The allow-list for the objects that Hydra itself instantiates: callbacks, launcher, sweeper and log handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agegender.config.allowlist import check_allowed, check_target
from agegender.config.hydra_versions import allowing
from agegender.config.trust import VARIABLE, extensions
from agegender.errors import require

_LIBRARIES = ("agegender.", "hydra.", "hydra_plugins.", "optuna.")
_NODES = ("hydra.callbacks", "hydra.launcher", "hydra.sweeper")
# In the dictionaries of `logging.config`, `()` is any callable, `class` a handler class, and `ext://` any object.
_LOGGING_LIBRARIES = ("logging.", "colorlog.")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOGGING_NODES = ("hydra.job_logging", "hydra.hydra_logging")


@contextmanager
def enforce_allowlist() -> Iterator[None]:
    """Check the `hydra` node of every config that Hydra composes inside, before Hydra instantiates anything of it.

    Hydra has no hook for such a check, so the method that loads every config is wrapped.

    Raises:
        AgeGenderError: A target is not allowed; the message names it.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    # In Hydra 1.4, `load_configuration` and other methods call `_load_configuration`.
    name = "_load_configuration" if hasattr(ConfigLoaderImpl, "_load_configuration") else "load_configuration"
    load = getattr(ConfigLoaderImpl, name)

    def load_checked(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        config = load(self, *args, **kwargs)
        check_hydra(config)
        return config

    setattr(ConfigLoaderImpl, name, load_checked)
    try:
        with allowing((*_LIBRARIES, *_LOGGING_LIBRARIES, *extensions())):
            yield
    finally:
        setattr(ConfigLoaderImpl, name, load)


def check_hydra(config: Any) -> None:
    """Check the `hydra` node of a composed config.

    Raises:
        AgeGenderError: A target is not allowed, or the config extends the allow-list; the message names the key.
    """
    from omegaconf import OmegaConf

    env = OmegaConf.select(config, "hydra.job.env_set")
    message = f"hydra.job.env_set.{VARIABLE} is refused: use trust=... on the command line, or the environment variable"
    require(not env or VARIABLE not in env, message)
    for name in _NODES:
        check_allowed(_resolve_partially(OmegaConf.select(config, name)), _LIBRARIES, name)
    for name in _LOGGING_NODES:
        _check_logging(_resolve_partially(OmegaConf.select(config, name)))


def _resolve_partially(node: Any) -> Any:
    """Return a node as plain containers, with every interpolation resolved that can be: one may stand for a node."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(node, DictConfig | ListConfig):
        return node
    raw: Any = OmegaConf.to_container(node, resolve=False)
    plain: dict[Any, Any] = {}
    for key in raw if isinstance(raw, dict) else range(len(raw or ())):
        try:
            plain[key] = _resolve_partially(node[key])
        except (OmegaConfBaseException, ValueError):  # `???`, or set by Hydra later: keep the string
            plain[key] = raw[key]
    return plain


def _check_logging(node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("()", "class"):
                check_target(str(value), _LOGGING_LIBRARIES, str(key))
            elif isinstance(value, str) and value.startswith("ext://"):
                message = f"{key}: {value} is refused; use {' or '.join(_STREAMS)}"
                require(value in _STREAMS, message)
            _check_logging(value)
