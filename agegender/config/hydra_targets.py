"""What Hydra itself may build, before any code of ours runs: its callbacks, launcher, sweeper and log handlers."""

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
# In Python's `logging.config`, `()` names anything to call, `class` a handler, and `ext://` any object.
_LOGGERS_LIBRARIES = ("logging.", "colorlog.")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOGGING_NODES = ("hydra.job_logging", "hydra.hydra_logging")


@contextmanager
def enforce_allowlist() -> Iterator[None]:
    """Has the `hydra` part of every config checked that Hydra composes inside, before Hydra builds anything of it.

    Hydra offers no place for that; the one method through which every config comes is surrounded.

    Raises:
        AgeGenderError: Names the target.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    # Hydra 1.4 comes through the second of these, which the first calls.
    name = "_load_configuration" if hasattr(ConfigLoaderImpl, "_load_configuration") else "load_configuration"
    load = getattr(ConfigLoaderImpl, name)

    def load_checked(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        config = load(self, *args, **kwargs)
        check_hydra(config)
        return config

    setattr(ConfigLoaderImpl, name, load_checked)
    try:
        with allowing((*_LIBRARIES, *_LOGGERS_LIBRARIES, *extensions())):
            yield
    finally:
        setattr(ConfigLoaderImpl, name, load)


def check_hydra(config: Any) -> None:
    """Checks the `hydra` part of a composed config.

    Raises:
        AgeGenderError: Names the target.
    """
    from omegaconf import OmegaConf

    environment = OmegaConf.select(config, "hydra.job.env_set")
    refused = f"hydra.job.env_set.{VARIABLE} is refused: only a person trusts packages, by trust=... or the environment"
    require(not environment or VARIABLE not in environment, refused)
    for name in _NODES:
        check_allowed(_plain(OmegaConf.select(config, name)), _LIBRARIES, name)
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
                check_target(str(value), _LOGGERS_LIBRARIES, str(key))
            elif isinstance(value, str) and value.startswith("ext://"):
                refused = f"{key}: {value} is refused; logging writes to {' or '.join(_STREAMS)} only"
                require(value in _STREAMS, refused)
            _check_logging(value)
