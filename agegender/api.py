"""Training from Python: a composed config, and one training of it, in a script or a notebook."""

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
from agegender.errors import AgeGenderError, require
from agegender.runs.resume import resume_overrides
from agegender.runs.run_dir import UniqueRunDir
from agegender.system.files import atomic_write, raise_write_errors


@dataclass(frozen=True)
class TrainedRun:
    """What a training leaves.

    Attributes:
        folder: The run's folder: checkpoints, `predictions.csv`, the report, ...
        score: The best validation score (`monitor`).
        metrics: What `metrics.json` holds: `test/age_mae`, `val/gender_acc`, ...; empty where another process wrote it.
    """

    folder: Path
    score: float
    metrics: dict[str, Any]


def compose_config(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> DictConfig:
    """Returns the config of a training, as the command line would make it.

    Args:
        overrides: Settings as on the command line: `["experiment=small", "data.dir=my faces", "trainer=gpu"]`;
            `resume=<run>` too.
        config_dir: A further folder of configs, as `--config-dir`; `./conf` is looked through in any case.

    Raises:
        AgeGenderError: A setting isn't known, or names what isn't there.
    """
    arguments = overrides_for_rank(resume_overrides(path_overrides(overrides)))
    if any(
        argument.startswith(LIGHTNING_CHILD_FLAG) for argument in sys.argv
    ):  # this script, once more, for another device
        arguments += [argument for argument in sys.argv[1:] if argument.startswith("hydra.")]
    try:
        config = compose_command("train", arguments, config_dir, hydra=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise AgeGenderError(explain(error, "train", arguments)) from error
    check_hydra(config)
    return config


def train(config: DictConfig) -> TrainedRun:
    """Trains, validates and tests as a config says, and leaves the results in a folder of the run's own.

    A resumed run goes on by the overrides that it was composed of: a setting that was changed in `config` itself is in
    force, but a resume has to be told it again.

    Args:
        config: Of `compose_config`.

    Raises:
        AgeGenderError: Anything that the user can mend; `InterruptedRunError` after Ctrl-C.
    """
    from agegender.training.train import train

    composed = "hydra" in config and bool(OmegaConf.select(config, "hydra.run.dir"))
    require(composed, "train() needs a whole config, with its hydra part: make it with agegender.compose_config([...])")
    swept = config.hydra.mode is RunMode.MULTIRUN
    require(not swept, "train() runs one training: leave out sweep=, or sweep on the command line, agegender train")
    config = config.copy()
    expand_homes(config)
    with _hydra_config(config) as settings:
        folder = Path(config.hydra.runtime.output_dir)
        score = train(settings)
    results = folder / "metrics.json"
    started = detect_launcher()
    is_first = started is None or started.rank == 0
    return TrainedRun(folder, score, json.loads(results.read_text(encoding="utf-8")) if is_first else {})


@contextmanager
def _hydra_config(config: DictConfig) -> Iterator[DictConfig]:
    """Makes the run's folder and the record in it, as a command would; yields the config without its `hydra` part."""
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
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield settings
    finally:
        HydraConfig.instance().cfg = before
