"""The allow-list for the objects that Hydra itself instantiates: callbacks, launcher, sweeper and log handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

from agegender.config.allowlist import check_allowed, check_target
from agegender.config.hydra_versions import allowing
from agegender.config.trust import extensions
from agegender.errors import require

_LIBRARIES = ("agegender.", "hydra.", "hydra_plugins.", "optuna.")
_NODES = ("hydra.callbacks", "hydra.launcher", "hydra.sweeper")
# In the dictionaries of `logging.config`, `()` is any callable, `class` a handler class, and `ext://` any object.
_LOGGING_LIBRARIES = ("logging.", "colorlog.")
_LOGGING_CLASSES = (
    *("logging.StreamHandler", "logging.NullHandler", "logging.FileHandler"),  # others send records elsewhere
    *("logging.Formatter", "logging.Filter", "colorlog.ColoredFormatter"),
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_RUN_DIR = "${hydra.runtime.output_dir}/"  # known to Hydra after this check
# Variables that a config may set: they choose devices and threads. Others make programs run code or write files.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
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

    for key in ("hydra.job.env_set", "hydra.env"):
        for name in _resolve_partially(OmegaConf.select(config, key)) or ():
            hint = f"only {', '.join(_VARIABLES)} may be set there; set others in the environment"
            require(name in _VARIABLES, f"{key}.{name} is refused: {hint}")
    job = str(OmegaConf.select(config, "hydra.job.name", throw_on_missing=False))
    require(PurePath(job).name == job, f"hydra.job.name={job} must be a file name, without a folder")
    for name in _NODES:
        check_allowed(_resolve_partially(OmegaConf.select(config, name)), _LIBRARIES, name)
    for name in _LOGGING_NODES:
        _check_logging(_resolve_partially(OmegaConf.select(config, name)), name, job)


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


def _check_logging(node: Any, where: str, job: str) -> None:
    """Check a dictionary of `logging.config`: its classes, streams, and files, which must be in the run's folder."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        place = f"{where}.{key}"
        if isinstance(value, Mapping | list):
            _check_logging(value, place, job)
        elif key in ("()", "class"):
            check_target(str(value), _LOGGING_LIBRARIES, place)
            require(value in _LOGGING_CLASSES, f"{place}: {value} is refused; use one of {', '.join(_LOGGING_CLASSES)}")
        elif key == "filename":
            inside = str(value).removeprefix(_RUN_DIR).replace("${hydra.job.name}", job)
            plain = str(value).startswith(_RUN_DIR) and "${" not in inside and ".." not in PurePath(inside).parts
            require(plain, f"{place}={value} is refused: log files are written to {_RUN_DIR}... only")
        elif "ext://" in str(value) or "cfg://" in str(value):
            require(value in _STREAMS, f"{place}: {value} is refused; use {' or '.join(_STREAMS)}")
        else:  # what can't be resolved yet may become anything later
            require("${" not in str(value), f"{place}={value} is refused: write the value itself")
