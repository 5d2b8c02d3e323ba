"""Configs of a training, composed once per choice of groups, and refusals of `train()` without a command around it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from agegender.config.hydra_versions import version_base
from agegender.config.overrides import path_overrides
from agegender.errors import AgeGenderError
from agegender.training.train import train

RefusalOf = Callable[..., str]


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), **version_base()):
        return compose("train", list(overrides), return_hydra_config=True)


def compose_train(*overrides: str, folder: Path) -> DictConfig:
    """Composes conf/train.yaml as the command does, whose outputs are in `folder`, and makes Hydra's node the current.

    Hydra takes half a second to compose a config. The choices of groups are therefore composed once; the values of
    other settings are set in a copy.
    """

    def needs_hydra(override: Override) -> bool:
        return override.is_delete() or (ROOT / "conf" / override.key_or_group).is_dir()

    given = path_overrides([*overrides, f"hydra.runtime.output_dir='{folder}'"])
    parsed = OverridesParser.create().parse_overrides(given)
    config = copy.deepcopy(_composed(tuple(str(each.input_line) for each in parsed if needs_hydra(each))))
    for each in parsed:
        if not needs_hydra(each):
            OmegaConf.update(config, each.key_or_group, each.value(), merge=True, force_add=each.is_add())
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


@pytest.fixture
def refusal_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusalOf]:
    """Returns the one line with which a training in `tmp_path` is refused, as `train.py` prints it after `error: `.

    Composing and `train()` are those of the command. That an error ends it with exit code 1 is tested with the command.
    """

    def refuse(*overrides: str) -> str:
        monkeypatch.chdir(tmp_path)
        folder = tmp_path / "logs" / "refused"
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)  # Hydra's record, which an early refusal removes
        config = compose_train(*overrides, folder=folder)
        with warnings.catch_warnings(), pytest.raises(AgeGenderError) as refused:
            train(config)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    yield refuse
    HydraConfig.instance().cfg = None
