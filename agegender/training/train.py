"""One run: check the config, build, fit, test, write the results. All use of Hydra's run state is here."""

from __future__ import annotations

import logging
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from agegender.config.overrides import as_written
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.index import FaceIndex
from agegender.data.index.split import Split
from agegender.distributed.collectives import is_rank_zero
from agegender.distributed.fsdp import FSDP
from agegender.distributed.launcher import script
from agegender.distributed.process_group import (
    barrier,
    check_world_size,
    init_process_group,
    one_rank_at_a_time,
    terminate_children,
)
from agegender.errors import AgeGenderError, require
from agegender.models.network import MultiTaskNet
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint, write_best
from agegender.runs.run_dir import run_lock
from agegender.system.files import atomic_write, raise_write_errors
from agegender.system.malloc import disable_malloc_trim
from agegender.system.terminal import is_quiet
from agegender.tasks.monitor import metric_modes, with_monitor
from agegender.training import builders
from agegender.training.callbacks.epoch_timer import EpochTimer
from agegender.training.callbacks.graceful_stop import handle_signals
from agegender.training.checks.config import check_config
from agegender.training.checks.hardware import check_hardware, warn_about_slow_precision
from agegender.training.checks.resume import check_resumable
from agegender.training.checks.schedule import check_schedule, check_schedule_settings
from agegender.training.distillation.teachers import Teacher, find_teachers, make_targets
from agegender.training.fault_messages import explain_system_errors
from agegender.training.known_warnings import silence_known_warnings
from agegender.training.loggers.experiment_trackers import closing, log_settings
from agegender.training.module import AgeGenderModule
from agegender.training.results import (
    describe_training,
    hyperparameters,
    log_results,
    print_results,
    short_path,
    write_results,
)
from agegender.training.tuning.tune import FINDERS, Tuning, no_run_record

log = logging.getLogger(__name__)


def train(config: DictConfig) -> float:
    """Train, validate and test as configured, and write the results to Hydra's output folder.

    In distributed training every rank calls this; rank 0 writes.

    Args:
        config: The composed `conf/train.yaml`.

    Returns:
        The best validation score (`config.monitor`), the objective of a sweep; for `data.split=test`, which has no
        validation, that of the test.

    Raises:
        AgeGenderError: An error that the user can fix.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    hydra = HydraConfig.get()
    if settings["resume"] and not any(given.startswith("weights=") for given in as_written(hydra.overrides.task)):
        settings["weights"] = None  # from an experiment, for the run's start: the run has its own weights now
    folder = Path(hydra.runtime.output_dir)
    watch = EpochTimer()
    with _remove_empty_run_dir(folder):
        check_config(settings)
        check_schedule_settings(settings)
        settings = with_monitor(settings)
        teachers = find_teachers(settings["teacher"], settings["tasks"])
        check_hardware(settings["trainer"])
        silence_known_warnings()
        multirun, overrides = hydra.mode is RunMode.MULTIRUN, as_written(hydra.overrides.task)
        tuning = Tuning(settings, multirun, overrides) if any(settings[name] for name in FINDERS) else None
        trainer = tuning.trainer if tuning else builders.build_trainer(settings, folder, [watch])
        warn_about_slow_precision(trainer)
        check_world_size(trainer, multirun, settings["data"]["batch_size"])
    with (
        no_run_record(folder) if tuning else nullcontext(),
        terminate_children(trainer),
        run_lock(folder),
        handle_signals(folder),
        explain_system_errors(folder, settings),
    ):
        init_process_group(trainer)
        if tuning:
            data, module, weights = _set_up(settings, trainer, teachers)
            builders.prepare_features(module, data, trainer, fit=True, fresh=not weights)
            return tuning.find(module, data, folder)
        with closing(trainer.loggers):
            return _fit_and_test(config, settings, folder, trainer, watch, teachers)


def _set_up(
    settings: dict[str, Any], trainer: pl.Trainer, teachers: Sequence[Teacher]
) -> tuple[AgeGenderDataModule, AgeGenderModule, dict[str, Any] | None]:
    """Return the data, the module and the checkpoint of its weights."""
    disable_malloc_trim()
    if torch.cuda.is_available() and "mixed" in str(settings["trainer"].get("precision")):
        torch.set_float32_matmul_precision("high")  # TF32 for operations that mixed precision keeps in float32
    weights = None
    if settings["weights"]:
        weights = load_checkpoint(find_checkpoint(settings["weights"]))
        MultiTaskNet.from_checkpoint(weights, f"weights={settings['weights']}")  # raises if they can't be used
    pl.seed_everything(settings["seed"], workers=True, verbose=False)

    data = builders.build_data(settings, weights)
    data.trainer = trainer
    with one_rank_at_a_time(data.cache_dir):
        data.prepare_data()
        data.setup()
        soft_targets = make_targets(teachers, data, settings)
    module = builders.build_module(settings, data, weights)
    module.soft_targets = soft_targets
    return data, module, weights


def _fit_and_test(
    config: DictConfig,
    settings: dict[str, Any],
    folder: Path,
    trainer: pl.Trainer,
    watch: EpochTimer,
    teachers: Sequence[Teacher],
) -> float:
    data, module, weights = _set_up(settings, trainer, teachers)
    monitor, watched = _monitored_metrics(settings, data, module)
    if settings["fit"]:
        check_schedule(trainer, len(data.split("train")), len(data.split("val")), settings["data"]["batch_size"])
    norms = any(isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) for part in module.modules())
    if norms and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        log.warning("PyTorch's SyncBatchNorm is for GPUs: each process's batch norms count its own faces only")
    resume = find_checkpoint(settings["resume"]) if settings["resume"] else None
    if resume:
        check_resumable(config, module, resume, trainer.world_size)
        log.info("continuing %s from checkpoints/%s", folder, resume.name)
        barrier()  # rank 0 rewrites the settings that they read
        if module.network.trainable == "none":  # features are computed before Lightning restores the run
            module.network.load_state_dict(load_checkpoint(resume)["network"])
    with one_rank_at_a_time(data.cache_dir):
        fresh = settings["fit"] and not (weights or resume)
        builders.prepare_features(module, data, trainer, settings["fit"], fresh)
    if is_rank_zero():
        if resume:
            _keep_settings(config, folder / ".hydra")
        _write_index(data.index, folder)
        log_settings(trainer.loggers, hyperparameters(settings))

    if settings["fit"]:
        if is_rank_zero():
            log.info("%s", describe_training(trainer, data, module))
        if settings["compile"]:
            module.network.compile()  # in place, which keeps the keys of the state_dict
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)

    def whole() -> AgeGenderModule:
        """Return a module that a checkpoint can be loaded into: after FSDP, a new one."""
        sharded = isinstance(trainer.strategy, FSDP)
        return builders.build_module(settings, data, weights) if sharded else module

    timing = watch.summary()  # before the evaluation, which restores the callbacks' states from the checkpoint
    best = _best(trainer) if settings["fit"] else None
    if best and is_rank_zero():
        write_best(folder, best)  # a checkpoint callback of another class doesn't record it
    figures: dict[str, float] = {}
    if monitor.startswith("val/"):
        loggers, trainer.loggers = trainer.loggers, []  # the value is on the curve already
        figures |= _evaluate(trainer.validate, whole(), data, best)
        trainer.loggers = loggers
        _check_finite(figures, watched)
    if settings["test"]:
        figures |= _evaluate(trainer.test, whole(), data, best)
    _check_finite(figures, watched)
    if is_rank_zero():
        _write_results(settings, folder, trainer, data, whole(), figures, monitor, best, timing)
    return figures[monitor]


def _write_results(
    settings: dict[str, Any],
    folder: Path,
    trainer: pl.Trainer,
    data: AgeGenderDataModule,
    module: AgeGenderModule,
    figures: dict[str, float],
    monitor: str,
    best: Path | None,
    timing: dict[str, float],
) -> None:
    """Write, log and print the results."""
    best_epoch = load_checkpoint(best)["epoch"] + 1 if best else None
    path = folder / "metrics.json"
    results = write_results(path, settings, figures, monitor, best_epoch, data, module, trainer, timing)
    log_results(trainer, settings, results)
    if not is_quiet():
        print_results(results, module, folder, settings["name"])
    if settings["test"] and settings["report"]:
        _report(folder)
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        log.info("now: %s weights=%s img=photo.jpg", script("predict"), shlex.quote(str(short_path(folder))))


def _monitored_metrics(
    settings: dict[str, Any], data: AgeGenderDataModule, module: AgeGenderModule
) -> tuple[str, list[str]]:
    """Return the metric that is the run's score, and those that are finite unless the network has diverged.

    Raises:
        AgeGenderError: The monitored metric of a training is undefined, because validation faces lack the label.
    """
    stage: Split = "test" if settings["data"].get("split") == "test" else "val"
    figure = settings["monitor"].removeprefix("val/")
    undefined: dict[str, str] = {}  # metric -> why
    for name, task in module.network.each_task():
        seen = len(set(data.split(stage).known(task.label).tolist()))
        needed = {f"{name}_{key}": metric.min_classes for key, metric in task.metrics().items()} | {f"{name}_loss": 1}
        lacking = f"all validation faces have the same {task.label}"
        if not seen:
            lacking = f"no validation face has the label {task.label}"
        undefined |= {metric: lacking for metric, least in needed.items() if seen < least}
    if settings["fit"] and figure in undefined:
        defined = [name for name in metric_modes(settings["tasks"]) if name.removeprefix("val/") not in undefined]
        raise AgeGenderError(f"monitor=val/{figure}, but {undefined[figure]}: set monitor={defined[0]}")
    return f"{stage}/{figure}", [f"{stage}/loss", *([f"{stage}/{figure}"] if figure not in undefined else [])]


def _check_finite(figures: dict[str, float], names: Sequence[str]) -> None:
    for name in names:
        require(
            math.isfinite(figures[name]),
            f"the training diverged: {name} is {figures[name]}; lower optim.lr or set trainer.gradient_clip_val=1",
        )


def _report(folder: Path) -> None:
    """Write the test report. The results are already written, so an error is only logged."""
    from agegender.evaluation.report.report import write_report  # imports matplotlib, only for reports

    try:
        log.info("report: %s", short_path(write_report([folder])))
    except AgeGenderError as error:
        log.warning("no report was written: %s", error)


@contextmanager
def _remove_empty_run_dir(folder: Path) -> Iterator[None]:
    """Remove the run's folder with Hydra's record if the settings are invalid."""
    try:
        yield
    except AgeGenderError:
        if is_rank_zero() and {path.name for path in folder.iterdir()} == {".hydra"}:
            shutil.rmtree(folder)
        raise


def _keep_settings(config: DictConfig, folder: Path) -> None:
    """Replace a resumed run's saved settings by the current ones, once they are checked (see `runs/resume.py`)."""
    overrides = OmegaConf.create(as_written(HydraConfig.get().overrides.task))
    for name, content in (("config.yaml", config), ("overrides.yaml", overrides)):
        with (
            raise_write_errors("the run's settings", folder / name),
            atomic_write(folder / name, "w", encoding="utf-8") as file,
        ):
            OmegaConf.save(content, file)  # atomic: a truncated file would prevent another resume


def _write_index(index: FaceIndex, folder: Path) -> None:
    for name, write in (("index.csv", index.write_csv), ("quarantine.csv", index.write_quarantine)):
        with raise_write_errors("the list of the faces", folder / name):
            write(folder / name)
    if index.quarantine:
        where = folder / "quarantine.csv"
        log.warning("%d files quarantined; each with its reason in %s", len(index.quarantine), where)


def _best(trainer: pl.Trainer) -> Path:
    callback = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint) or not callback.monitor or not callback.best_model_path:
        raise AgeGenderError("no best checkpoint was written; keep callbacks.checkpoint and at least one validation")
    return Path(callback.best_model_path)


def _evaluate(method: Any, module: AgeGenderModule, data: AgeGenderDataModule, best: Path | None) -> dict[str, float]:
    figures: dict[str, float] = method(
        module, datamodule=data, ckpt_path=best, verbose=False, weights_only=True if best else None
    )[0]
    return figures
