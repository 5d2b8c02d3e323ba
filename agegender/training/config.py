"""Is this configuration right? Every setting is held against the signature of what it will be handed to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hydra.utils import get_object
from pydantic import NonNegativeFloat, NonNegativeInt

from agegender.data.choose import choose
from agegender.data.synthetic import generate_faces
from agegender.data.transforms import Augment
from agegender.errors import AgeGenderError, require
from agegender.models.age import AGE_CODINGS
from agegender.models.face_trunk import FaceTrunk
from agegender.models.face_weights import describe_weights
from agegender.models.network import TRUNKS, AgeGenderNet
from agegender.models.torchvision_trunk import TorchvisionTrunk
from agegender.signatures import check_call, check_named, check_value
from agegender.training.balance import Balance
from agegender.training.build import check_node, check_target
from agegender.training.metrics import CLASS_NAMES, HIGHER_IS_BETTER, NAMES
from agegender.training.module import warmup_cosine
from agegender.training.profiling import PROFILERS
from agegender.training.soft_targets import SoftTargets

_TOP_LEVEL: dict[str, Any] = {
    "seed": NonNegativeInt,
    "fit": bool,
    "test": bool,
    "report": bool,
    "resume": str | None,
    "weights": str | None,
    "teacher": str | list[str] | None,
    "monitor": str,
    "mode": Literal["min", "max"],
    "name": str,
    "compile": bool,
    "tta": Literal["none", "flip"],
}


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses unknown keys and wrong-typed values before any data is read.

    There is no second list of settings to keep in step: the signatures and type hints of our own classes, and of the
    library classes that `_target_` names, are the schema.

    Args:
        config: The composed training config, resolved, as plain containers.

    Raises:
        AgeGenderError: Names the key, and the nearest valid one or the type wanted.
    """
    check_target(config)
    for group in ("data", "model", "age", "optim", "trainer"):
        require(bool(config.get(group)), f"{group} is left out: there is nothing to train; choose one of conf/{group}")
    for key, hint in _TOP_LEVEL.items():
        check_value(key, config[key], hint)
    check_call("loss", config["loss"], Balance, SoftTargets, given=("rows", "ages", "p_female", "teachers"))
    Balance(**{key: value for key, value in config["loss"].items() if key != "teacher"})  # refuses what means nothing
    measured = (*NAMES, *CLASS_NAMES) if config["age"].get("name") == "classes" else NAMES
    check_named("monitor", config["monitor"], [f"val/{name}" for name in measured])
    wanted = "max" if config["monitor"].removeprefix("val/") in HIGHER_IS_BETTER else "min"
    require(config["mode"] == wanted, f"monitor={config['monitor']} needs mode={wanted}")
    made, arguments = choose(config["data"])
    check_call("data", arguments, made, given=("augment", "seed"))
    check_call("data.generate", config["data"].get("generate") or {}, generate_faces, given=("folder", "progress"))
    check_call("augment", config.get("augment") or {}, Augment)
    check_named("age.name", config["age"].get("name"), AGE_CODINGS)
    coding = {key: value for key, value in config["age"].items() if key != "name"}
    check_call("age", coding, AGE_CODINGS[config["age"]["name"]])
    check_named("model.trunk", config["model"].get("trunk"), TRUNKS)
    trunk, model = TRUNKS[config["model"]["trunk"]], dict(config["model"])
    if trunk is TorchvisionTrunk:  # what is filled in before the network is built, see `describe_network`
        check_value("model.pretrained", model.pop("pretrained", None), bool | str | None)
        model = {key: value for key, value in model.items() if value is not None or key not in ("mean", "std")}
    if trunk is FaceTrunk:
        check_value("model.weights", model.get("weights"), str)
        describe_weights(model.pop("weights"), model.get("backbone"))
        model = {key: value for key, value in model.items() if value is not None or key != "backbone"}
    check_call("model", model, AgeGenderNet, trunk, given=("age", "in_channels", "image_size"))
    if config["optim"].get("schedule"):
        schedule = config["optim"]["schedule"]
        check_call("optim.schedule", schedule, warmup_cosine, given=("step", "steps"))
        fits = all(0 <= share <= 1 for share in schedule.values())
        require(fits, f"optim.schedule={schedule} must hold shares between 0 and 1")
    check_value("optim.trunk_factor", config["optim"].get("trunk_factor"), NonNegativeFloat)
    _check_built("optim.optimizer", config["optim"]["optimizer"], given=("params",))
    _check_built("trainer", config["trainer"], given=("callbacks", "logger"))
    _check_together(config)
    for group in ("callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if node is not None:
                _check_built(f"{group}.{name}", node)


def _check_together(config: Mapping[str, Any]) -> None:
    """Refuses settings that are right one by one and lead nowhere together, before an hour is spent on them."""
    trainer, fit = config["trainer"], config["fit"]
    checkpoint = (config.get("callbacks") or {}).get("checkpoint")
    require(
        fit or not config["resume"], "resume= continues a training: with fit=false, give weights= instead of resume="
    )
    require(
        fit or bool(config["weights"]),
        "fit=false measures a model that was trained: say which with weights=<run folder or checkpoint>",
    )
    all_tests = config["data"].get("split") == "test"
    require(
        not (fit and all_tests),
        "data.split=test leaves no picture to train on: judge a model with fit=false weights=..., or leave it out",
    )
    require(config["test"] or not all_tests, "data.split=test and test=false leave nothing to do: leave out test=false")
    require(
        not (config["resume"] and config["weights"]),
        "resume= continues a run with its own weights: leave out weights=, or resume=",
    )
    require(not fit or bool(checkpoint), "keep callbacks.checkpoint: it writes best.ckpt, which is what gets tested")
    require(
        not trainer.get("fast_dev_run"), "trainer.fast_dev_run writes no checkpoint to test; trainer=debug is as quick"
    )
    require(
        not fit or trainer.get("limit_val_batches") != 0,
        "trainer.limit_val_batches=0 leaves nothing to choose the best epoch by: allow at least one batch",
    )
    _check_teacher(config)
    scaled = config["model"].get("feature_clip") is not None and fit and not config["weights"]
    require(
        not scaled or config["data"].get("source", "folder") == "folder",
        "model.feature_clip needs the statistics of training faces, which a stream has no places to take from: with "
        "data=streaming, begin with weights=<a run that was trained on a folder>, or set model.feature_clip=null",
    )
    _check_strategy(config)
    if isinstance(trainer.get("profiler"), str):
        check_named("trainer.profiler", trainer["profiler"], PROFILERS)
    _check_precision(config)
    if config["optim"].get("schedule"):
        bounded = trainer.get("max_epochs") not in (None, -1) or trainer.get("max_steps", -1) != -1
        require(bounded, "optim.schedule needs to know where it ends: set trainer.max_epochs")


def _check_teacher(config: Mapping[str, Any]) -> None:
    weight, teacher = config["loss"]["teacher"], config["teacher"]
    require(0 <= weight <= 1, f"loss.teacher={weight} must lie between 0 (labels only) and 1 (teachers only)")
    if teacher is None:
        return
    require(len(teacher) > 0, "teacher= names nothing: give a run's folder, a checkpoint or a list of them, or null")
    require(config["fit"], "teacher= teaches in a training: with fit=false, leave it out")
    name, source = config["age"]["name"], config["data"].get("source", "folder")
    require(name == "dldl", f"teacher= teaches distributions over years, and age={name} has none: set age=dldl")
    require(
        source == "folder",
        f"teacher= needs faces that it can ask for by their place: with data={source}, leave it out, or take the "
        "folder that was packed",
    )


def _check_strategy(config: Mapping[str, Any]) -> None:
    """Refuses what Lightning would share out wrongly among several devices, or trip over."""
    trainer = config["trainer"]
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", 1)
    require(devices != 0, "trainer.devices=0 trains on nothing: set a number, a list, or auto")
    require(
        not trainer.get("overfit_batches") or devices in (1, "1", [0]),
        "trainer.overfit_batches is for one device: with several each would train on all of these batches; set "
        "trainer.devices=1",
    )
    require(
        not any(kind in strategy for kind in ("spawn", "fork", "notebook", "deepspeed")) and strategy != "fsdp",
        f"trainer.strategy={strategy} is none that a run's folder and figures are right with; use trainer=ddp or "
        "trainer=fsdp",
    )
    sharded = "FullySharded" in strategy
    require(
        not (sharded and trainer.get("gradient_clip_val")),
        "Lightning can't clip gradients that trainer=fsdp has in parts: use trainer=ddp, or "
        "trainer.gradient_clip_val=null",
    )
    averages = (config.get("callbacks") or {}).get("averaging")
    require(
        not (sharded and averages),
        "callbacks=ema needs all weights in each process, and trainer=fsdp has them in parts: use trainer=ddp, or "
        "callbacks=default",
    )


def _check_precision(config: Mapping[str, Any]) -> None:
    precision = str(config["trainer"].get("precision", "32-true"))
    taken = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
    require(
        precision in taken,
        f"trainer.precision={precision} would compute ages in that precision too: use 32-true, bf16-mixed or 16-mixed",
    )
    fused = config["optim"]["optimizer"].get("fused")
    require(
        precision in taken[:2] or not config["trainer"].get("gradient_clip_val") or not fused,
        "Lightning can't clip gradients of a fused optimiser in mixed precision: set optim.optimizer.fused=false",
    )


def _check_built(where: str, node: Mapping[str, Any], given: tuple[str, ...] = ()) -> None:
    """Checks a node that names its class by `_target_`."""
    target = node.get("_target_")
    if target is None:
        raise AgeGenderError(f"{where} has no _target_: name the class to build")
    check_node(node)
    try:
        built = get_object(target)
    except Exception as error:
        raise AgeGenderError(f"{where}._target_={target} can't be imported: {' '.join(str(error).split())}") from None
    check_call(where, {key: value for key, value in node.items() if not key.startswith("_")}, built, given=given)
