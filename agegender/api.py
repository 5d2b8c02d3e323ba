"""The Python API for training in a script or a notebook: compose a config and train on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from agegender.cli.main import explain
from agegender.config.compose import compose_command, expand_homes
from agegender.config.hydra_targets import check_hydra
from agegender.config.overrides import as_written, overrides_for_rank, path_overrides
from agegender.distributed.launcher import LIGHTNING_CHILD_FLAG, detect_launcher
from agegender.errors import AgeGenderError, InterruptedRunError, SignalExit, require
from agegender.runs.resume import resume_overrides
from agegender.runs.run_dir import UniqueRunDir
from agegender.system.files import atomic_write, raise_write_errors


@dataclass(frozen=True)
class TrainedRun:
    """The results of a training.

    Attributes:
        folder: Run folder: checkpoints, `predictions.csv`, the report, ...
        score: Best validation score (the metric `monitor`).
        metrics: Contents of `metrics.json`: `test/age_mae`, `val/age_mae`, ...; empty on ranks other than 0.
    """

    folder: Path
    score: float
    metrics: dict[str, Any]


def compose_config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> DictConfig:
    """Compose the config of a training as the command line does.

    Args:
        overrides: Settings as on the command line: `["experiment=small", "data.dir=my faces", "trainer=gpu"]`,
            including `resume=<run>`.
        config_dir: Additional config folder, like `--config-dir`; `./conf` is always on the search path.

    Raises:
        AgeGenderError: A setting is unknown, or its file or config doesn't exist.
    """
    arguments = overrides_for_rank(resume_overrides(path_overrides(overrides)))
    # Lightning launches the script again for every further device.
    if any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in sys.argv):
        arguments += [argument for argument in sys.argv[1:] if argument.startswith("hydra.")]
    try:
        config = compose_command("train", arguments, config_dir, hydra=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise AgeGenderError(explain(error, "train", arguments)) from error
    check_hydra(config)
    return config


def train(config: DictConfig) -> TrainedRun:
    """Train, validate and test a model, and write the results to a new run folder.

    Only the overrides of `compose_config` are recorded for `resume=`. A setting that was changed in `config` itself
    must be changed again in the config of the resumed run.

    Args:
        config: A config of `compose_config`.

    Raises:
        AgeGenderError: A setting or the data is invalid, or the system failed; `InterruptedRunError` after Ctrl-C.
    """
    from agegender.training.train import train

    has_hydra = "hydra" in config and bool(OmegaConf.select(config, "hydra.run.dir"))
    require(has_hydra, "train() needs a config with its hydra node: make it with agegender.compose_config([...])")
    is_sweep = config.hydra.mode is RunMode.MULTIRUN
    require(not is_sweep, "train() runs one training: leave out sweep=, or sweep on the command line, agegender train")
    finds = config.get("lr_find") or config.get("batch_size_find")
    require(not finds, "lr_find and batch_size_find are for the command line, agegender train: train() runs a training")
    config = config.copy()
    expand_homes(config)
    with _run_context(config) as settings:
        folder = Path(config.hydra.runtime.output_dir)
        try:
            score = train(settings)
        except SignalExit as error:  # a notebook goes on
            raise InterruptedRunError(str(error), int(str(error.code))) from None
    metrics = folder / "metrics.json"
    launch = detect_launcher()
    is_rank_zero = launch is None or launch.rank == 0
    return TrainedRun(folder, score, json.loads(metrics.read_text(encoding="utf-8")) if is_rank_zero else {})


@contextmanager
def _run_context(config: DictConfig) -> Iterator[DictConfig]:
    """Create the run folder and its `.hydra` record, set `HydraConfig`, and yield the config without `hydra`."""
    UniqueRunDir().on_run_start(config)
    folder = Path(config.hydra.run.dir).resolve()
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir, config.hydra.runtime.cwd = str(folder), os.getcwd()
    settings = config.copy()
    with read_write(settings), open_dict(settings):
        del settings["hydra"]
    if config.hydra.output_subdir is not None:
        record = folder / config.hydra.output_subdir
        overrides = OmegaConf.create(as_written(config.hydra.overrides.task))
        parts = (("config.yaml", settings), ("overrides.yaml", overrides))
        for name, content in (*parts, ("hydra.yaml", OmegaConf.masked_copy(config, ["hydra"]))):
            with (
                raise_write_errors("the run's settings", record / name),
                atomic_write(record / name, "w", encoding="utf-8") as file,
            ):
                OmegaConf.save(content, file)
    else:
        folder.mkdir(parents=True, exist_ok=True)
    previous = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield settings
    finally:
        HydraConfig.instance().cfg = previous
