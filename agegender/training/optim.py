"""Parameter groups, optimizer and learning-rate scheduler, as `configure_optimizers` returns them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from agegender.config.allowlist import accepted_kwargs, check_built, instantiate, refuses_settings, resolve
from agegender.errors import require

# Keys of `optim.scheduler` that belong to Lightning's scheduler config, not to the scheduler.
LIGHTNING_KEYS = ("interval", "monitor")
_SHARDED = "_fsdp_wrapped_module."  # FSDP's addition to the names of sharded parameters


def parameter_ndims(network: nn.Module) -> dict[str, int]:
    """Return the number of dimensions of each parameter, by name."""
    return {name: weight.ndim for name, weight in network.named_parameters()}


def param_groups(
    network: nn.Module,
    others: Iterable[nn.Parameter],
    optimizer: Mapping[str, Any],
    trunk_lr_mult: float = 1.0,
    dimensions: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups; several groups have names, which label their learning-rate curves.

    Biases and the gains of norm layers have no weight decay, as is usual since Goyal et al., "Accurate, Large Minibatch
    SGD", 2017.

    Args:
        network: A module with a `trunk`; all other parameters belong to the heads.
        others: Further parameters, such as those of the loss, without weight decay.
        optimizer: Settings of the optimizer, of which `lr` and `weight_decay` are used.
        trunk_lr_mult: Learning rate of the trunk as a fraction of `lr`, at least 0: small for a pretrained trunk.
        dimensions: Result of `parameter_ndims` before FSDP shards the network, which flattens matrices.
    """
    decays = bool(optimizer.get("weight_decay"))
    trunk = {id(weight) for weight in network.trunk.parameters()} if trunk_lr_mult != 1 else set()  # type: ignore[union-attr]
    groups: dict[str, list[nn.Parameter]] = {}
    ndims = parameter_ndims(network) if dimensions is None else dimensions
    for name, weight in network.named_parameters():
        if not weight.requires_grad:  # frozen trunk
            continue
        part = ("trunk" if id(weight) in trunk else "heads") if trunk else "weights"
        no_decay = decays and ndims[name.replace(_SHARDED, "")] < 2
        groups.setdefault(f"{part}_no_decay" if no_decay else part, []).append(weight)
    extra = list(others)
    if extra:
        groups["loss_no_decay"] = extra
    made = []
    for name, weights in groups.items():
        group: dict[str, Any] = {"params": weights} | ({"name": name} if len(groups) > 1 else {})
        if name.startswith("trunk"):
            group["lr"] = optimizer["lr"] * trunk_lr_mult
        if name.endswith("_no_decay") and decays:
            group["weight_decay"] = 0.0
        made.append(group)
    return made


class WarmupCosine(LambdaLR):
    """A linear warm-up of the learning rate, then half a cosine; see `warmup_cosine`.

    A checkpoint stores the number of steps taken, but not `total_steps`: after a resume with more epochs, the cosine
    spans the new length.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.05, final_lr_ratio: float = 0.01
    ):
        """Set up the schedule.

        Args:
            optimizer: The optimizer whose learning rates are scaled.
            total_steps: Number of steps of the whole training.
            warmup_fraction: Fraction of the steps in which the rates rise to their full value.
            final_lr_ratio: Fraction of the full rate at the end.

        Raises:
            AgeGenderError: A fraction is not between 0 and 1.
        """
        check_fractions(warmup_fraction, final_lr_ratio)
        super().__init__(optimizer, lambda step: warmup_cosine(step, total_steps, warmup_fraction, final_lr_ratio))


def check_fractions(warmup_fraction: float = 0.05, final_lr_ratio: float = 0.01) -> None:
    """Raise AgeGenderError if a setting of `WarmupCosine` is not a fraction."""
    for name, fraction in (("warmup_fraction", warmup_fraction), ("final_lr_ratio", final_lr_ratio)):
        require(0 <= fraction <= 1, f"optim.scheduler.{name}={fraction} must be a fraction between 0 and 1")


def warmup_cosine(step: int, steps: int, warmup_fraction: float, final_lr_ratio: float) -> float:
    """Return the factor of the learning rate at a step: a linear warm-up, then half a cosine.

    The cosine is that of Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.

    Args:
        step: The step, from 0.
        steps: Number of steps of the whole training.
        warmup_fraction: Fraction of the steps in which the rate rises to its full value.
        final_lr_ratio: Factor at the end.
    """
    rising = max(1, round(warmup_fraction * steps))
    if step < rising:
        return (step + 1) / rising
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    return final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(config: Mapping[str, Any], groups: list[dict[str, Any]]) -> Optimizer:
    """Build an optimizer for parameter groups, through a partial: Hydra would copy the parameters.

    Raises:
        AgeGenderError: See `build`.
    """
    make = instantiate({**config, "_partial_": True}, "optim.optimizer")
    try:
        optimizer: Optimizer = make(groups)
    except (TypeError, ValueError) as error:
        raise refuses_settings(config, error) from error
    check_built(optimizer, "optim.optimizer")
    return optimizer


def build_scheduler(config: Mapping[str, Any], optimizer: Optimizer, steps: int, epochs: int) -> LRSchedulerConfigType:
    """Build the scheduler of an optimizer's learning rates, as Lightning takes it.

    Args:
        config: `_target_`, any of `torch.optim.lr_scheduler` or ours, and its arguments; `interval`, `step` or `epoch`.
            If the scheduler takes `total_steps` and the config has none, it is the training's length. `monitor` is the
            metric of `ReduceLROnPlateau`.
        optimizer: The optimizer to schedule.
        steps: Length of the training in steps.
        epochs: Length of the training in epochs.

    Raises:
        AgeGenderError: See `build`.
    """
    arguments = {key: value for key, value in config.items() if key not in LIGHTNING_KEYS}
    interval = config.get("interval", "epoch")
    known = accepted_kwargs(resolve(config, "optim.scheduler"), total_steps=steps if interval == "step" else epochs)
    if "steps_per_epoch" in arguments:  # OneCycleLR's alternative to `total_steps`
        known = {}
    make = instantiate({**known, **arguments, "_partial_": True}, "optim.scheduler")
    try:
        scheduler: LRScheduler = make(optimizer)
    except (TypeError, ValueError) as error:
        raise refuses_settings(config, error) from error
    check_built(scheduler, "optim.scheduler")
    made: LRSchedulerConfigType = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, ReduceLROnPlateau):
        made["monitor"] = config.get("monitor") or "val/loss"
    return made
