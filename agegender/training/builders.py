"""Build the data module, the LightningModule and the Trainer from checked settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from torch import Tensor

from agegender.config.allowlist import accepted_kwargs, check_built, instantiate, kwargs_of, resolve
from agegender.data.augmentation.mixing import build_mixing, split_settings
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.protocol import protocol_of
from agegender.distributed.collectives import is_rank_zero
from agegender.distributed.launcher import detect_launcher
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.trunk import complete
from agegender.tasks.labels import labels_of
from agegender.tasks.number import set_thresholds
from agegender.training.callbacks.divergence import StopOnNonFinite
from agegender.training.callbacks.graceful_stop import GracefulStop
from agegender.training.callbacks.predictions_csv import PredictionsCSVWriter
from agegender.training.checkpoint_io import AtomicCheckpointIO
from agegender.training.checks.resume import load_weights
from agegender.training.module import AgeGenderModule

log = logging.getLogger(__name__)
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def build_data(settings: dict[str, Any], weights: dict[str, Any] | None = None) -> AgeGenderDataModule:
    """Build the data module; if `weights` are only evaluated, with the image size and color mode of their network."""
    node = dict(settings["data"])
    if weights and not settings["fit"]:
        network = weights["agegender"]["network"]
        node |= {"image_size": network["image_size"], "grayscale": network["in_channels"] == 1}
    made = resolve(node, "data")
    data: AgeGenderDataModule = made(
        **kwargs_of(node),
        **accepted_kwargs(
            made,
            augment=split_settings(settings.get("augment"))[0],
            seed=settings["seed"],
            labels=labels_of(settings["tasks"]),
        ),
    )
    check_built(data, "data")
    return data


def build_module(
    settings: dict[str, Any], data: AgeGenderDataModule, weights: dict[str, Any] | None = None
) -> AgeGenderModule:
    """Build the module for data that is set up; `weights` is the checkpoint to start from."""
    network, pretrained = network_kwargs(settings, data.image_size, data.channels)
    if weights and not settings["fit"]:
        network = weights["agegender"]["network"]
    rule, index = data.split_settings, data.index
    protocol = protocol_of(rule, index.split_source, index.leak)
    split = {"fingerprint": index.fingerprint, "protocol": protocol.name, **rule}
    optim = {key: settings["optim"][key] for key in ("optimizer", "scheduler", "trunk_lr_mult")}
    loss = {key: value for key, value in settings["loss"].items() if key != "teacher"}  # an argument of SoftTargets
    module = AgeGenderModule(network, optim, loss, split, settings["seed"], settings["tta"])
    set_thresholds([task for _, task in module.network.each_task()], settings["thresholds"])
    module.mixing = build_mixing(settings.get("augment"))
    if not weights and not settings["resume"]:
        for _, task in module.network.each_task():
            task.prepare(data.split("train").known(task.label).astype(np.float64))
    if pretrained and not weights and not settings["resume"]:
        module.origin = module.network.trunk.load_pretrained(pretrained)  # type: ignore[operator]
    if weights:
        load_weights(module, weights, settings["weights"])
        module.origin = weights["agegender"].get("origin")
        trained_on = module.pretrained_split = (weights["agegender"]["split"] or {}).get("fingerprint", "unknown")
        if trained_on != data.index.fingerprint:
            log.warning(
                "the weights were trained under split %s, this is split %s: if the images are the same, some of these "
                "test images were trained on and the metrics are too optimistic",
                trained_on,
                data.index.fingerprint,
            )
    return module


def network_kwargs(
    settings: dict[str, Any], image_size: int, channels: int
) -> tuple[dict[str, Any], str | bool | None]:
    """Return all arguments of the network, and the published weights to start from."""
    model = complete(settings["model"], channels)
    pretrained = model.pop("pretrained", None)
    model.pop("name", None)  # the trunk's setting interpolates it
    return {"image_size": image_size, "in_channels": channels, "tasks": settings["tasks"], **model}, pretrained or None


_SCALED_BY = 2048  # training faces from which the features' statistics are computed if nothing is cached


def prepare_features(
    module: AgeGenderModule, data: AgeGenderDataModule, trainer: pl.Trainer, fit: bool, fresh: bool
) -> None:
    """Cache a frozen trunk's features, and fit the feature scaler.

    Args:
        module: Its scaler is modified in place.
        data: Data that is set up; its batches contain the features from now on.
        trainer: The features are computed in its precision.
        fit: Whether the run trains.
        fresh: Whether to fit the scaler; False if a checkpoint contains it.
    """
    network = module.network.eval().to(data.device)  # Lightning moves it there only when the training starts
    precision = trainer.precision_plugin.forward_context
    cached = network.trainable == "none" and data.cache == "auto"
    if cached:
        data.keep_features(network, precision, fit)
    if network.scaler is not None and fresh:
        network.scaler.fit(torch.cat(data.training_features() if cached else _some_features(network, data, precision)))
    network.train()


def _some_features(
    network: MultiTaskNet, data: AgeGenderDataModule, precision: Callable[[], AbstractContextManager[Any]]
) -> list[Tensor]:
    """Return the features of up to `_SCALED_BY` evenly spaced training faces."""
    faces = data.split("train")
    step = max(1, len(faces) // _SCALED_BY)
    with torch.inference_mode(), precision():
        parts = torch.split(torch.arange(0, len(faces), step)[:_SCALED_BY], 16)
        return [network.features(faces.__getitems__(part)["image"]).float() for part in parts]


def build_trainer(settings: dict[str, Any], folder: Path, watching: Sequence[Callback] = ()) -> pl.Trainer:
    """Build the Trainer; its callbacks are the config's, those in `watching`, and the built-in ones."""
    callbacks: list[Callback] = [
        instantiate(node, "callbacks") for node in (settings.get("callbacks") or {}).values() if node is not None
    ]
    callbacks += [*watching, PredictionsCSVWriter(folder / "predictions.csv")]
    callbacks.append(StopOnNonFinite(folder / "diverged.txt"))
    callbacks.append(GracefulStop(folder / "checkpoints" / "last.ckpt"))
    loggers = [instantiate(node, "logger") for node in (settings.get("logger") or {}).values() if node is not None]
    if not loggers:  # Lightning raises an error for this callback without a logger
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    given: dict[str, Any] = {"callbacks": callbacks, "logger": loggers or False, "enable_progress_bar": bar}
    if isinstance(settings["trainer"].get("profiler"), str):
        profiler = settings["trainer"]["profiler"]  # rank 0 is profiled
        given["profiler"] = build_profiler(profiler, folder / "profiler") if is_rank_zero() else None
    given["plugins"] = [*(settings["trainer"].get("plugins") or []), AtomicCheckpointIO()]
    return _make_trainer(settings["trainer"], **given)


def build_tuning_trainer(settings: dict[str, Any], steps: int, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
    """Build a Trainer with the run's precision, devices and accumulation that takes `steps` and writes no file."""
    unbounded = {key: value for key, value in settings["trainer"].items() if key not in ("max_time", "min_steps")}
    bounds = {"max_steps": steps, "max_epochs": -1, "min_epochs": None, "limit_val_batches": 0, "profiler": None}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return _make_trainer(unbounded | bounds | {"num_sanity_val_steps": 0}, callbacks=list(callbacks), **quiet)


def _make_trainer(node: dict[str, Any], **given: Any) -> pl.Trainer:
    # the data module's loaders split each batch over the ranks
    trainer: pl.Trainer = instantiate(
        node, "trainer", use_distributed_sampler=False, **given, **_trainer_overrides(node)
    )
    return trainer


def _trainer_overrides(trainer: dict[str, Any]) -> dict[str, Any]:
    """Return the Trainer's arguments that depend on the launcher and the hardware.

    `devices=auto` is the number of processes per node that torchrun or srun started; on a CPU, Lightning would use 1.
    `sync_batchnorm` is turned off on CPUs, which PyTorch's SyncBatchNorm doesn't support.
    """
    arguments: dict[str, Any] = {}
    launch = detect_launcher()
    if trainer.get("devices") == "auto" and launch is not None and launch.local_world_size:
        arguments["devices"] = launch.local_world_size
    accelerator = trainer.get("accelerator", "auto")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    if trainer.get("sync_batchnorm") and on_cpu:
        arguments["sync_batchnorm"] = False
    return arguments


def build_profiler(name: str, folder: Path) -> Profiler:
    """Build one of Lightning's `PROFILERS` that writes to a folder, and log the output path.

    `simple` times every hook and callback, `advanced` every Python function (which slows the training down), and
    `pytorch` records every operation of some steps, by Lightning's schedule, as a table and a trace.
    """
    log.info("profiling: the results will be in %s", folder / f"fit-{name}.txt")  # Lightning's name
    profiler: Profiler = PROFILERS[name](folder, name)
    return profiler
