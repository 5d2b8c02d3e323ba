"""What takes the settings of the config nodes that have no `_target_`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from agegender.config.validation import PROVIDED, parameter_hints


def train_settings(where: str) -> dict[str, Any]:
    """Return the settings at a place of the training config, with their types.

    Args:
        where: Dotted key of a node without `_target_`; empty for the root.
    """
    from agegender.data.sources.synthetic import generate_faces
    from agegender.models.network import MultiTaskNet
    from agegender.training.checks.config import TOP_LEVEL
    from agegender.training.distillation.soft_targets import SoftTargets
    from agegender.training.losses import MultiTaskLoss

    takers: dict[str, tuple[Callable[..., Any], ...]] = {
        "model": (MultiTaskNet,),
        "loss": (MultiTaskLoss, SoftTargets),
        "data.synthetic": (generate_faces,),
    }
    further: dict[str, dict[str, Any]] = {
        "": TOP_LEVEL,
        "model": {"pretrained": bool | str | None, "name": str | None},
        "optim.scheduler": {"interval": Literal["step", "epoch"], "monitor": str | None},
    }
    hints = {key: hint for called in takers.get(where, ()) for key, hint in parameter_hints(called)[0].items()}
    hints |= further.get(where, {})
    return {key: hint for key, hint in hints.items() if key not in PROVIDED.get(where, ())}
