"""Load the weights of an earlier run, and check that a run can be resumed with the current settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agegender.config.allowlist import resolve
from agegender.data.augmentation.build import resolve_augmentation
from agegender.data.augmentation.mixing import Mixing
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.streaming.datamodule import StreamingDataModule
from agegender.errors import require
from agegender.models.network import MultiTaskNet
from agegender.runs.checkpoint import load_checkpoint
from agegender.runs.resume import run_dir_of
from agegender.training.distillation.soft_targets import SoftTargets
from agegender.training.losses import MultiTaskLoss
from agegender.training.module import AgeGenderModule
from agegender.training.optim import param_groups
from agegender.training.results import flatten_dict

# Settings that may change on resume: length, hardware, and output. Any other change would make it a different run.
RESUME_MAY_CHANGE = (
    *("trainer.max_", "trainer.min_", "trainer.accelerator", "trainer.devices", "trainer.profiler", "trainer.log_"),
    *("trainer.strategy", "trainer.num_nodes", "trainer.sync_batchnorm"),
    *("trainer.default_root_dir", "data.dir", "data.cache", "data.on_device", "data.num_workers", "data.strict"),
)
_SHARDED = "agegender.distributed.fsdp.FSDP"
# Settings of a network that its weights don't depend on.
_FREE_TO_LOAD = ("dropout", "feature_dropout", "trunk.conv_dropout", "weight_init", "trainable")


def load_weights(module: AgeGenderModule, weights: dict[str, Any], source: str) -> None:
    """Load a checkpoint's weights into a module whose network is the same.

    Args:
        module: Modified in place.
        weights: The checkpoint, as `load_checkpoint` returns it.
        source: Its path, for the error message.

    Raises:
        AgeGenderError: The networks differ; the message names each difference.
    """
    theirs, ours = (
        flatten_dict(with_defaults(node)) for node in (weights["agegender"]["network"], module.hparams["network"])
    )
    names = sorted({*theirs, *ours} - {*_FREE_TO_LOAD})
    different = [key for key in names if theirs.get(key) != ours.get(key)]
    pairs = ", ".join(f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in different)
    require(
        not different, f"weights={source} don't fit this network ({pairs}); set data and model as in the checkpoint"
    )
    module.network.load_state_dict(weights["network"])


def check_resumable(config: DictConfig, module: AgeGenderModule, checkpoint: Path, devices: int) -> None:
    """Check that a run is resumed with its own settings: Lightning would restore some of the old ones.

    Args:
        config: The current settings.
        module: The module built from them.
        checkpoint: A checkpoint in the folder of the run to resume, which contains its settings.
        devices: The current number of devices, over all nodes.

    Raises:
        AgeGenderError: Settings differ; the message names each difference.
    """
    run = run_dir_of(checkpoint)
    groups = ("data", "model", "tasks", "augment", "optim", "trainer", "loss", "teacher", "seed", "monitor")
    before, now = (_flat({group: node.get(group) for group in groups}) for node in (_saved(run), config))
    # A setting that was added since had the effect of its default then.
    before = {key: value for key, value in _defaults_by_key(config).items() if key in now} | before
    names = sorted(key for key in {*before, *now} if not key.startswith(RESUME_MAY_CHANGE))
    changed = [f"{key} was {before.get(key)} and is {now.get(key)}" for key in names if before.get(key) != now.get(key)]
    strategies = [flat.get("trainer.strategy._target_") or flat.get("trainer.strategy") for flat in (before, now)]
    if strategies[0] != strategies[1] and _SHARDED in strategies:  # FSDP saves the optimizer state in another order
        changed.append(f"trainer.strategy was {strategies[0]} and is {strategies[1]}")
    saved = load_checkpoint(checkpoint)
    streamed = saved.get(StreamingDataModule.__qualname__)  # position in the shards
    if streamed and streamed["dataset"]["world_size"] != devices:
        before_devices = streamed["dataset"]["world_size"]
        changed.append(f"an epoch's shards were split over {before_devices} devices (data=streaming), not {devices}")
    planned = [state["total_steps"] for state in saved.get("lr_schedulers", []) if "total_steps" in state]
    lengths = [key for key in ("trainer.max_epochs", "trainer.max_steps") if before.get(key) != now.get(key)]
    if planned and lengths:  # PyTorch would raise an error at the last step
        was, key = before.get(lengths[0]), lengths[0]
        changed.append(f"its scheduler ends after {planned[0]} steps: {key} was {was} and is {now.get(key)}")
    split = (saved["hyper_parameters"]["split"] or {}).get("fingerprint")
    if split != module.hparams["split"]["fingerprint"]:
        changed.append(f"the images' split was {split} and is {module.hparams['split']['fingerprint']}")
    saved_teachers, teachers = saved["agegender"].get("teachers"), module.soft_targets and module.soft_targets.teachers
    if saved_teachers != teachers and not changed:  # same paths, but different files
        changed.append("a teacher's checkpoint was another file")
    require(
        not changed,
        f"resume={run} continues a run unchanged, but {'; '.join(changed)}. Restore it, or start a new run from its "
        "weights with weights=...",
    )


def with_defaults(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's settings with all defaults filled in, to compare checkpoints of different versions."""
    tasks = {name: _with_defaults(node, "tasks") for name, node in network["tasks"].items() if node is not None}
    trunk = _with_defaults(network["trunk"], "model.trunk")
    return _defaults(MultiTaskNet) | dict(network) | {"trunk": trunk, "tasks": tasks}


def _with_defaults(node: Mapping[str, Any], place: str) -> dict[str, Any]:
    return _defaults(resolve(node, place)) | dict(node)


def _defaults_by_key(config: DictConfig) -> dict[str, Any]:
    model = _defaults(MultiTaskNet) | {"trunk": _defaults(resolve(config.model.trunk, "model.trunk"))}
    tasks = {name: _defaults(resolve(node, "tasks")) for name, node in config.tasks.items() if node is not None}
    loss = _defaults(MultiTaskLoss) | {"teacher": _defaults(SoftTargets)["teacher"]}
    optim = {"trunk_lr_mult": _defaults(param_groups)["trunk_lr_mult"]}
    shared = {"model": model, "tasks": tasks, "loss": loss, "optim": optim}
    augment = _defaults(resolve_augmentation(config.get("augment") or {})) | _defaults(Mixing)
    return flatten_dict({"data": _defaults(AgeGenderDataModule), "augment": augment, **shared})


def _defaults(called: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(called).parameters.values()
    values = {item.name: item.default for item in parameters if item.default is not item.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _saved(run: Path) -> DictConfig:
    saved = OmegaConf.load(run / ".hydra" / "config.yaml")
    assert isinstance(saved, DictConfig)
    return saved


def _flat(groups: dict[str, Any]) -> dict[str, Any]:
    """Return settings by dotted key, with unresolved interpolations (`${optim.lr}`)."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(groups), resolve=False)
    return flatten_dict(plain)
