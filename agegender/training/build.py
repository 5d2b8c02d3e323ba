"""Builds what Lightning's `configure_optimizers` returns: the optimizer, and the scheduler of its learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from agegender.errors import require
from agegender.targets import accepted, build, check_built, refuses_settings, resolve

# What `optim.scheduler` may hold beside the scheduler's own arguments; Lightning's words for them.
LIGHTNINGS_KEYS = ("interval", "monitor")


class WarmupCosine(LambdaLR):
    """A linear warm-up of the learning rate, then half a cosine; see `warmup_cosine`.

    A checkpoint holds how many steps were taken, and not `total_steps`: resumed for more epochs, the cosine spans the
    new length.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.01):
        """Starts at the first step.

        Args:
            optimizer: Its parameter groups' rates are scaled.
            total_steps: Length of the whole training.
            warmup: Share of the steps in which the rates rise to their full value.
            final: Share of the full rate that is left at the end.

        Raises:
            AgeGenderError: A share is not between 0 and 1.
        """
        check_shares(warmup, final)
        super().__init__(optimizer, lambda step: warmup_cosine(step, total_steps, warmup, final))


def check_shares(warmup: float = 0.05, final: float = 0.01) -> None:
    """Refuses settings of `WarmupCosine` that are no shares."""
    for name, share in (("warmup", warmup), ("final", final)):
        require(0 <= share <= 1, f"optim.scheduler.{name}={share} must be a share between 0 and 1")


def warmup_cosine(step: int, steps: int, warmup: float, final: float) -> float:
    """Returns the factor of the learning rate at a step: a linear warm-up, then half a cosine.

    The cosine is that of Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.

    Args:
        step: From 0.
        steps: Length of the whole training.
        warmup: Share of the steps in which the rate rises to its full value.
        final: Factor that is left at the end.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(config: Mapping[str, Any], groups: list[dict[str, Any]]) -> Optimizer:
    """Builds an optimizer for parameter groups, in two steps: Hydra would copy the weights that it is given.

    Raises:
        AgeGenderError: See `build`.
    """
    make = build({**config, "_partial_": True}, "optim.optimizer")
    try:
        optimizer: Optimizer = make(groups)
    except (TypeError, ValueError) as error:
        raise refuses_settings(config, error) from error
    check_built(optimizer, "optim.optimizer")
    return optimizer


def build_scheduler(config: Mapping[str, Any], optimizer: Optimizer, steps: int, epochs: int) -> LRSchedulerConfigType:
    """Builds the scheduler of an optimizer's learning rates, as Lightning takes it.

    Args:
        config: `_target_`, any of `torch.optim.lr_scheduler` or ours, and its arguments; `interval`, `step` or `epoch`,
            says when it moves. If it takes `total_steps` and the config gives none, that is the training's length.
            `monitor` is the figure that `ReduceLROnPlateau` follows.
        optimizer: Whose.
        steps: The training's length.
        epochs: Likewise.

    Raises:
        AgeGenderError: See `build`.
    """
    arguments = {key: value for key, value in config.items() if key not in LIGHTNINGS_KEYS}
    interval = config.get("interval", "epoch")
    known = accepted(resolve(config, "optim.scheduler"), total_steps=steps if interval == "step" else epochs)
    if "steps_per_epoch" in arguments:  # OneCycleLR's other way to say how long the training is
        known = {}
    make = build({**known, **arguments, "_partial_": True}, "optim.scheduler")
    try:
        scheduler: LRScheduler = make(optimizer)
    except (TypeError, ValueError) as error:
        raise refuses_settings(config, error) from error
    check_built(scheduler, "optim.scheduler")
    made: LRSchedulerConfigType = {"scheduler": scheduler, "interval": interval}
    if isinstance(scheduler, ReduceLROnPlateau):
        made["monitor"] = config.get("monitor") or "val/loss"
    return made
