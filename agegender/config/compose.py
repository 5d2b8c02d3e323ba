"""Config composition with Hydra: the search path (the package's configs, then `./conf`) and a command's config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from agegender.config.hydra_versions import version_base
from agegender.config.overrides import is_path
from agegender.errors import AgeGenderError

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel has the configs inside the package (see `setup.py`), a clone beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
OWN = "conf"  # folder of the user's configs, below the working directory


def config_path(further: str | None = None) -> list[Path]:
    """Return the folders that are searched for configs, the package's first.

    Args:
        further: Value of `--config-dir`.
    """
    folders = map(Path, [*([further] if further is not None else []), OWN])
    return [CONF, *(folder for folder in folders if folder.is_dir() and not folder.samefile(CONF))]


class OwnConfigs(SearchPathPlugin):
    """A search path plugin that appends `./conf` to Hydra's config search path.

    The package's configs take precedence: `conf/train.yaml` of another project has no effect.
    """

    further: str | None = None  # value of `--config-dir`, for `compose`, which has no such option

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders that exist."""
        for folder in config_path(self.further)[1:]:
            search_path.append("own configs", f"file://{folder.resolve()}")


def register_plugins() -> None:
    """Register the plugins of this package, which Hydra doesn't discover in an editable installation."""
    from hydra_plugins.agegender_optuna.optuna_sweeper import OptunaSweeper

    plugins = Plugins.instance()
    for plugin in (OptunaSweeper, OwnConfigs):
        plugins.register(plugin)


@contextmanager
def config_folders(config_dir: str | None = None) -> Iterator[None]:
    """Initialize Hydra's `compose` with the config search path of the commands.

    Args:
        config_dir: Additional config folder, like `--config-dir`.

    Raises:
        AgeGenderError: `config_dir` doesn't exist.
    """
    if config_dir is not None and not os.path.isdir(os.path.expanduser(config_dir)):
        raise AgeGenderError(f"config_dir={config_dir} is not a folder; give the folder of your configs")
    register_plugins()
    GlobalHydra.instance().clear()
    OwnConfigs.further = None if config_dir is None else os.path.expanduser(config_dir)
    try:
        with initialize_config_dir(str(CONF), **version_base()):
            yield
    finally:
        OwnConfigs.further = None


def compose_command(
    config_name: str, overrides: Sequence[str], config_dir: str | None = None, hydra: bool = False
) -> DictConfig:
    """Return the config that a command line composes.

    Args:
        config_name: Name of the command: `train`, `predict`, ...
        overrides: Overrides in Hydra's grammar.
        config_dir: Additional config folder, like `--config-dir`.
        hydra: Whether to keep the `hydra` node.

    Raises:
        HydraException: An override is invalid.
    """
    with config_folders(config_dir):
        return compose(config_name, list(overrides), return_hydra_config=hydra)


def expand_homes(config: DictConfig) -> None:
    """Expand `~` in the settings that are paths, in place; config files may contain it as well as the command line."""
    for key in _leaf_keys(config, ""):
        value = OmegaConf.select(config, key, throw_on_missing=False) if is_path(key) else None
        if isinstance(value, str) and value.startswith("~") and not os.path.lexists(value):
            OmegaConf.update(config, key, os.path.expanduser(value))


def _leaf_keys(config: DictConfig, prefix: str) -> Iterator[str]:
    for name in map(str, config):
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name):
            continue
        if isinstance(config[name], DictConfig):
            yield from _leaf_keys(config[name], f"{key}.")
        else:
            yield key
