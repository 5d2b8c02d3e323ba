"""Where the configs are, and how one is composed: the package's own, then those of the working folder."""

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
# The wheel holds the configs inside the package (see `setup.py`); a clone, installed to be edited or not, beside it.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
OWN = "conf"  # a user's own configs, in the working folder


class OwnConfigs(SearchPathPlugin):
    """Has Hydra find the configs in `./conf` too, wherever the command is started.

    They come after the package's: another project's `conf/train.yaml` changes nothing here.
    """

    further: str | None = None  # `--config-dir`, where Hydra doesn't see it itself

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends the folders that there are."""
        given = [self.further] if self.further is not None else []
        for folder in map(Path, [*given, OWN]):
            if folder.is_dir() and not folder.samefile(CONF):
                search_path.append("own configs", f"file://{folder.resolve()}")


def register_plugins() -> None:
    """Makes our plugins known to Hydra, which finds those in an editable installation by no other way."""
    from hydra_plugins.agegender_optuna.optuna_sweeper import OptunaSweeper

    plugins = Plugins.instance()
    for plugin in (OptunaSweeper, OwnConfigs):
        plugins.register(plugin)


@contextmanager
def config_folders(config_dir: str | None = None) -> Iterator[None]:
    """Lets Hydra's `compose` find what a command would find.

    Args:
        config_dir: A further folder of configs, as `--config-dir`.

    Raises:
        AgeGenderError: There is no such folder.
    """
    if config_dir is not None and not os.path.isdir(os.path.expanduser(config_dir)):
        raise AgeGenderError(f"config_dir={config_dir} is no folder; give the one that holds your configs")
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
    """Returns the config of a command line.

    Args:
        config_name: The command's: `train`, `predict`, ...
        overrides: Settings in Hydra's grammar.
        config_dir: A further folder of configs, as `--config-dir`.
        hydra: Keep the `hydra` part.

    Raises:
        HydraException: The settings don't fit.
    """
    with config_folders(config_dir):
        return compose(config_name, list(overrides), return_hydra_config=hydra)


def expand_homes(config: DictConfig) -> None:
    """Replaces `~` in the settings that name a file or folder, in place; a config file may hold one, too."""
    for key in _keys_of(config, ""):
        value = OmegaConf.select(config, key, throw_on_missing=False) if is_path(key) else None
        if isinstance(value, str) and value.startswith("~") and not os.path.lexists(value):
            OmegaConf.update(config, key, os.path.expanduser(value))


def _keys_of(config: DictConfig, above: str) -> Iterator[str]:
    for name in map(str, config):
        key = f"{above}{name}"
        if OmegaConf.is_missing(config, name) or OmegaConf.is_interpolation(config, name):
            continue
        if isinstance(config[name], DictConfig):
            yield from _keys_of(config[name], f"{key}.")
        else:
            yield key
