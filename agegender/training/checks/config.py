"""Validation of the training config against the signatures of the classes that it configures."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from agegender.config.allowlist import (
    accepted_kwargs,
    check_allowed,
    check_instantiable,
    kwargs_of,
    resolve,
)
from agegender.config.validation import PROVIDED, validate_choice, validate_kwargs, validate_type
from agegender.data.augmentation.build import resolve_augmentation
from agegender.data.augmentation.mixing import Mixing, build_mixing, split_settings
from agegender.data.settings import check_data, streams
from agegender.errors import did_you_mean, require
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.trunk import complete
from agegender.tasks.info import check_thresholds
from agegender.tasks.labels import labels_of
from agegender.tasks.monitor import with_monitor
from agegender.tasks.number import NumberTask
from agegender.training.builders import PROFILERS
from agegender.training.distillation.soft_targets import SoftTargets
from agegender.training.losses import MultiTaskLoss
from agegender.training.optim import LIGHTNING_KEYS, WarmupCosine, check_fractions

# Types of the settings at the root
TOP_LEVEL: dict[str, Any] = {
    "seed": NonNegativeInt,
    "fit": bool,
    "test": bool,
    "report": bool,
    "resume": str | None,
    "weights": str | None,
    "teacher": str | list[str] | None,
    "monitor": str | None,
    "name": str,
    "lr_find": bool,
    "batch_size_find": bool,
    "compile": bool,
    "tta": Literal["none", "flip"],
    "thresholds": list[int],
}


def check_config(config: Mapping[str, Any]) -> None:
    """Check for unknown keys and wrong types before any data is read.

    The schema is not a second list of settings: it is the signatures and type hints of our own classes and of the
    library classes that `_target_` names.

    Args:
        config: The composed training config, resolved, in plain containers.

    Raises:
        AgeGenderError: A key or value is invalid; the message names the nearest valid key or the expected type.
    """
    require("trust" not in config, "trust= counts on the command line only, not in a config or a run's record")
    check_allowed(config)
    for group in ("data", "model", "tasks", "optim", "trainer"):
        require(bool(config.get(group)), f"{group} is missing: choose one of conf/{group}")
    for key, hint in TOP_LEVEL.items():
        validate_type(key, config[key], hint)
    check_thresholds(config["thresholds"])
    validate_kwargs("loss", config["loss"], MultiTaskLoss, SoftTargets)
    for name, node in config["tasks"].items():
        if node is not None:
            _check_task(f"tasks.{name}", node)
    labels_of(config["tasks"])  # checks that tasks agree about their labels
    config = with_monitor(config)
    made = check_data(config["data"])
    augment, mixing = split_settings(config.get("augment"))
    validate_kwargs("augment", mixing, Mixing)
    if augment:
        taken = accepted_kwargs(made, augment=augment)
        require(
            bool(taken), f"{config['data']['_target_']} takes no augment: set augment=none, or give it the argument"
        )
        validate_kwargs("augment", kwargs_of(augment), resolve_augmentation(augment))
    _check_model(config["model"], 1 if config["data"].get("grayscale", True) else 3)
    _check_scheduler(config)
    validate_type("optim.trunk_lr_mult", config["optim"].get("trunk_lr_mult"), NonNegativeFloat)
    _check_instantiable("optim.optimizer", config["optim"]["optimizer"])
    _check_instantiable("trainer", config["trainer"])
    _check_combinations(config)
    for group in ("callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if node is not None:
                _check_instantiable(f"{group}.{name}", node, group)
                tuner = str(node["_target_"]).rpartition(".")[2] in ("LearningRateFinder", "BatchSizeFinder")
                require(
                    not tuner,
                    f"{group}.{name}: {node['_target_']} tunes an attribute of a module, but these are "
                    "settings here: use lr_find=true or batch_size_find=true, or sweep over them, as in "
                    "-m optim.lr=1e-4,1e-3",
                )


def _check_task(where: str, node: Mapping[str, Any]) -> None:
    built = resolve(node, "tasks", where)
    check_instantiable(node, where)
    parameters = inspect.signature(built).parameters.values()
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    number = inspect.isclass(built) and issubclass(built, NumberTask) and passes_on
    validate_kwargs(where, kwargs_of(node), built, *([NumberTask] if number else []))


def _check_combinations(config: Mapping[str, Any]) -> None:
    """Check for combinations of valid settings that can't work together."""
    trainer, fit = config["trainer"], config["fit"]
    checkpoint = (config.get("callbacks") or {}).get("checkpoint")
    require(
        fit or not config["resume"], "resume= continues a training: with fit=false, use weights= instead of resume="
    )
    require(
        fit or bool(config["weights"]),
        "fit=false evaluates a trained model: choose it with weights=<run folder or checkpoint>",
    )
    all_tests = config["data"].get("split") == "test"
    require(
        not (fit and all_tests),
        "data.split=test leaves no images to train on: evaluate a model with fit=false weights=..., or remove it",
    )
    require(config["test"] or not all_tests, "data.split=test and test=false leave nothing to do: leave out test=false")
    require(
        not (config["resume"] and config["weights"]),
        "resume= continues a run with its own weights: leave out weights=, or resume=",
    )
    require(not fit or bool(checkpoint), "keep callbacks.checkpoint: it writes best.ckpt, which is tested")
    require(
        not trainer.get("fast_dev_run"), "trainer.fast_dev_run writes no checkpoint to test; trainer=debug is as quick"
    )
    _check_teacher(config)
    finders = [name for name in ("lr_find", "batch_size_find") if config[name]]
    require(len(finders) < 2, "lr_find and batch_size_find: choose one, as the learning rate depends on the batch size")
    require(
        not finders or (fit and not config["resume"]),
        f"{''.join(finders)}=true tests the first steps of a training: leave out {'resume=' if fit else 'fit=false'}",
    )
    cached = config["model"].get("trainable") == "none" and config["data"].get("cache", "auto") == "auto"
    require(
        build_mixing(config.get("augment")) is None or not cached or streams(config["data"]),
        "augment.mixup and augment.cutmix mix pixels, but model.trainable=none trains on cached features: set both to "
        "0, or model.trainable=upper",
    )
    scaled = config["model"].get("feature_clip") is not None and fit and not config["weights"]
    require(
        not scaled or not streams(config["data"]),
        "model.feature_clip needs the statistics of training faces, which a stream can't look up: with "
        "data=streaming, start from weights=<a run that was trained on a folder>, or set model.feature_clip=null",
    )
    _check_strategy(config)
    if isinstance(trainer.get("profiler"), str):
        validate_choice("trainer.profiler", trainer["profiler"], PROFILERS)
    _check_precision(config)


def _check_teacher(config: Mapping[str, Any]) -> None:
    weight, teacher = config["loss"]["teacher"], config["teacher"]
    require(0 <= weight <= 1, f"loss.teacher={weight} must lie between 0 (labels only) and 1 (teachers only)")
    if teacher is None:
        return
    require(len(teacher) > 0, "teacher= is empty: set a run's folder, a checkpoint or a list of them, or null")
    require(config["fit"], "teacher= requires a training: with fit=false, remove it")
    require(
        not streams(config["data"]),
        "teacher= requires random access to the faces: with data=streaming, remove it, or use the folder that "
        "was packed",
    )


def _check_strategy(config: Mapping[str, Any]) -> None:
    """Check for settings that Lightning would handle wrongly with several devices, or not support."""
    trainer = config["trainer"]
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    require(devices != 0, "trainer.devices=0 is no device: set a number, a list, or auto")
    require(
        not trainer.get("overfit_batches") or devices in (1, "1", [0]),
        "trainer.overfit_batches is for one device: with several each would train on all of these batches; set "
        "trainer.devices=1",
    )
    require(
        not any(kind in strategy for kind in ("spawn", "fork", "notebook", "deepspeed")) and strategy != "fsdp",
        f"trainer.strategy={strategy} is not supported; use trainer=ddp or trainer=fsdp",
    )
    sharded = "fsdp" in strategy.lower()
    require(
        not (sharded and trainer.get("gradient_clip_val")),
        "Lightning can't clip gradients that trainer=fsdp shards: use trainer=ddp, or trainer.gradient_clip_val=null",
    )
    averages = [name for name in ("ema", "swa") if (config.get("callbacks") or {}).get(name)]
    require(
        not (sharded and averages),
        f"callbacks={''.join(averages[:1])} needs all weights in each process, and trainer=fsdp shards them: use "
        "trainer=ddp, or callbacks=default",
    )
    require(len(averages) < 2, "callbacks.ema and callbacks.swa both average the weights: set one of them to null")


def _check_precision(config: Mapping[str, Any]) -> None:
    precision = str(config["trainer"].get("precision", "32-true"))
    supported = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
    require(
        precision in supported,
        f"trainer.precision={precision} would compute ages in that precision too: use 32-true, bf16-mixed or 16-mixed",
    )
    fused = config["optim"]["optimizer"].get("fused")
    require(
        precision in supported[:2] or not config["trainer"].get("gradient_clip_val") or not fused,
        "Lightning can't clip gradients of a fused optimizer in mixed precision: set optim.optimizer.fused=false",
    )


def _check_model(model: Mapping[str, Any], in_channels: int) -> None:
    """Check the network's settings; null settings may be filled in from the trunk's published weights."""
    trunk = model.get("trunk") or {}
    made = resolve(trunk, "model.trunk")
    validate_type("model.pretrained", model.get("pretrained"), bool | str | None)
    known = hasattr(made, "load_pretrained")
    require(known or not model.get("pretrained"), f"model.pretrained: {trunk['_target_']} has no published weights")
    named = model.get("name") is None or trunk.get("name") == model["name"]
    require(named, f"model.name={model.get('name')} has no effect: it is for model=torchvision and model=timm")
    may_be_null = ("mean", "std") if hasattr(made, "published") else ()
    arguments = {key: value for key, value in model.items() if key not in ("trunk", "name", "pretrained")}
    arguments = {key: value for key, value in arguments.items() if value is not None or key not in may_be_null}
    options = [name for name in inspect.signature(made).parameters if name not in ("in_channels", "image_size")]
    for key in {*arguments} - {*inspect.signature(MultiTaskNet).parameters}:
        hint = did_you_mean(key, options)  # arguments of the trunk, which has its own node
        moved = hint.removeprefix("did you mean ")
        require(moved == hint, f"model.{key} is not known; did you mean model.trunk.{moved}")
    validate_kwargs("model", arguments, MultiTaskNet, provided=(*PROVIDED["model"], "trunk"))
    if may_be_null:
        trunk = {key: value for key, value in trunk.items() if value is not None}
    _check_instantiable("model.trunk", trunk)
    complete(model, in_channels)  # checks that the published weights match


def _check_scheduler(config: Mapping[str, Any]) -> None:
    scheduler, trainer = config["optim"].get("scheduler"), config["trainer"]
    if not scheduler:
        return
    resolve(scheduler, "optim.scheduler")
    validate_type("optim.scheduler.interval", scheduler.get("interval", "epoch"), Literal["step", "epoch"])
    validate_type("optim.scheduler.monitor", scheduler.get("monitor"), str | None)
    arguments = {key: value for key, value in scheduler.items() if key not in LIGHTNING_KEYS}
    # A given number of steps is the scheduler's own.
    provided = tuple(name for name in PROVIDED["optim.scheduler"] if name not in arguments or name == "optimizer")
    _check_instantiable("optim.scheduler", arguments, provided=provided)
    if resolve(scheduler, "optim.scheduler") is WarmupCosine:
        check_fractions(
            **{key: value for key, value in arguments.items() if key in ("warmup_fraction", "final_lr_ratio")}
        )
    takes_length = "total_steps" in inspect.signature(resolve(scheduler, "optim.scheduler")).parameters
    bounded = trainer.get("max_epochs") not in (None, -1)
    bounded = bounded or (trainer.get("max_steps", -1) != -1 and scheduler.get("interval") == "step")
    bounded = bounded or not takes_length or bool({"total_steps", "steps_per_epoch"} & {*arguments})
    require(bounded, "optim.scheduler requires the length of the training: set trainer.max_epochs")
    plateau = scheduler["_target_"].endswith(".ReduceLROnPlateau")
    require(
        plateau or scheduler.get("monitor") is None,
        "optim.scheduler.monitor is for ReduceLROnPlateau, which follows a metric: remove it",
    )
    require(
        not plateau or scheduler.get("interval", "epoch") == "epoch",
        "optim.scheduler: ReduceLROnPlateau follows a validation metric: set optim.scheduler.interval=epoch",
    )


def _check_instantiable(
    where: str, node: Mapping[str, Any], place: str = "", provided: tuple[str, ...] | None = None
) -> None:
    """Check a node with a `_target_`, whose required type is that of the place `place` (default: `where`)."""
    built = resolve(node, place or where, where)
    check_instantiable(node, where)
    validate_kwargs(where, kwargs_of(node), built, provided=provided)
