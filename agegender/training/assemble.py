"""From checked settings to the three things that a training is made of: the data, the module and the Trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from torch import Tensor

from agegender.data.datamodule import AgeGenderDataModule
from agegender.launched import launched
from agegender.models.network import AgeGenderNet
from agegender.models.trunk import complete
from agegender.targets import accepted, arguments_of, build, check_built, resolve
from agegender.training.callbacks import PredictionsCsv
from agegender.training.continuing import load_weights
from agegender.training.diverging import StopWhenDiverged
from agegender.training.module import AgeGenderModule
from agegender.training.profiling import build_profiler
from agegender.training.saving import WholeCheckpoints
from agegender.training.stopping import StopOnSignal
from agegender.training.together import first

log = logging.getLogger(__name__)


def build_data(settings: dict[str, Any], weights: dict[str, Any] | None = None) -> AgeGenderDataModule:
    """Builds the datamodule; with `weights` that are only measured, for pictures as their network takes them."""
    node = dict(settings["data"])
    if weights and not settings["fit"]:  # a checkpoint is judged on pictures of its own size and colour mode
        network = weights["agegender"]["network"]
        node |= {"image_size": network["image_size"], "grayscale": network["in_channels"] == 1}
    made = resolve(node, "data")
    data: AgeGenderDataModule = made(
        **arguments_of(node), **accepted(made, augment=settings.get("augment"), seed=settings["seed"])
    )
    check_built(data, "data")
    return data


def build_module(
    settings: dict[str, Any], data: AgeGenderDataModule, weights: dict[str, Any] | None = None
) -> AgeGenderModule:
    """Builds the module for the data, which must be set up; `weights` is the checkpoint that it begins with."""
    network, pretrained = describe_network(settings, data.image_size, data.channels)
    if weights and not settings["fit"]:
        network = weights["agegender"]["network"]
    split = {"fingerprint": data.index.fingerprint, **data.split_settings}
    optim = {key: settings["optim"][key] for key in ("optimizer", "scheduler", "trunk_factor")}
    loss = {key: value for key, value in settings["loss"].items() if key != "teacher"}  # that is SoftTargets's
    module = AgeGenderModule(network, optim, loss, split, settings["seed"], settings["tta"])
    module.masks = not data.index.complete
    if pretrained and not weights and not settings["resume"]:
        module.origin = module.network.trunk.load_pretrained(pretrained)  # type: ignore[operator]
    if weights:
        load_weights(module, weights, settings["weights"])
        module.origin = weights["agegender"].get("origin")
        trained_on = module.weights_split = (weights["agegender"]["split"] or {}).get("fingerprint", "unknown")
        if trained_on != data.index.fingerprint:
            log.warning(
                "the weights were trained under split %s, this is split %s: if the pictures are the same, some of "
                "these test pictures were trained on and the figures are flattered",
                trained_on,
                data.index.fingerprint,
            )
    return module


def describe_network(
    settings: dict[str, Any], image_size: int, channels: int
) -> tuple[dict[str, Any], str | bool | None]:
    """Returns the arguments of the network, all that a checkpoint needs, and the published weights to begin with."""
    model = complete(settings["model"], channels)
    pretrained = model.pop("pretrained", None)
    model.pop("name", None)  # the trunk's own setting refers to it
    return {"image_size": image_size, "in_channels": channels, "age": settings["age"], **model}, pretrained or None


_SCALED_BY = 2048  # training faces that the features' statistics are taken from, where nothing is cached


def prepare_features(module: AgeGenderModule, data: AgeGenderDataModule, trainer: pl.Trainer, fresh: bool) -> None:
    """Caches a frozen trunk's features, and fits the features' scale.

    Args:
        module: Its scaler is changed in place.
        data: Set up; its batches carry the features from now on.
        trainer: Its precision is that of the features.
        fresh: The scale is to be fitted: the network doesn't come with one of its own.
    """
    network, precision = module.network.eval(), trainer.precision_plugin.forward_context
    cached = network.trainable == "none" and data.cache == "auto"
    if cached:
        data.keep_features(network, precision)
    if network.scaler is not None and fresh:
        network.scaler.fit(torch.cat(data.training_features() if cached else _some_features(network, data, precision)))
    network.train()


def _some_features(
    network: AgeGenderNet, data: AgeGenderDataModule, precision: Callable[[], AbstractContextManager[Any]]
) -> list[Tensor]:
    """Returns the features of up to `_SCALED_BY` training faces, evenly spread."""
    faces = data.split("train")
    step = max(1, len(faces) // _SCALED_BY)
    with torch.inference_mode(), precision():
        parts = torch.split(torch.arange(0, len(faces), step)[:_SCALED_BY], 16)
        return [network.features(faces.__getitems__(part)["image"]).float() for part in parts]


def build_trainer(settings: dict[str, Any], folder: Path, watching: Sequence[Callback] = ()) -> pl.Trainer:
    """Builds the Trainer with everything that watches the training; `watching` comes on top of the config's."""
    callbacks: list[Callback] = [
        build(node, "callbacks") for node in (settings.get("callbacks") or {}).values() if node is not None
    ]
    callbacks += [*watching, PredictionsCsv(folder / "predictions.csv")]
    callbacks.append(StopWhenDiverged(folder / "diverged.txt"))
    callbacks.append(StopOnSignal(folder / "checkpoints" / "last.ckpt"))
    loggers = [build(node, "logger") for node in (settings.get("logger") or {}).values() if node is not None]
    if not loggers:  # it would have nowhere to write to, and Lightning refuses it
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    given: dict[str, Any] = {"callbacks": callbacks, "logger": loggers or False, "enable_progress_bar": bar}
    if isinstance(settings["trainer"].get("profiler"), str):
        profiler = settings["trainer"]["profiler"]  # of several processes the first is looked at
        given["profiler"] = build_profiler(profiler, folder / "profiler") if first() else None
    given["use_distributed_sampler"] = False  # the loaders share the batches out themselves, none twice
    given["plugins"] = [*(settings["trainer"].get("plugins") or []), WholeCheckpoints()]
    trainer: pl.Trainer = build(settings["trainer"], "trainer", **given, **_for_this_process(settings["trainer"]))
    return trainer


def _for_this_process(trainer: dict[str, Any]) -> dict[str, Any]:
    """Returns what the Trainer's settings mean here.

    `devices=auto` is as many as torchrun or srun started; on a CPU, Lightning would take it for one. `sync_batchnorm`
    is PyTorch's SyncBatchNorm, which is for GPUs: on CPUs, each process's norms count its own faces.
    """
    meant: dict[str, Any] = {}
    launch = launched()
    if trainer.get("devices") == "auto" and launch is not None and launch.per_node:
        meant["devices"] = launch.per_node
    accelerator = trainer.get("accelerator", "auto")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    if trainer.get("sync_batchnorm") and on_cpu:
        meant["sync_batchnorm"] = False
    return meant
