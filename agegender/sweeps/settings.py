"""The settings on which a job's score depends, and a digest of them that identifies a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agegender.training.results import flatten_dict

# Settings that may differ between jobs that are compared: hardware and display. All others change the scores.
NOT_COMPARED = (
    *("name", "fit", "test", "report", "resume", "compile", "logger", "trainer.accelerator", "trainer.devices"),
    *("trainer.profiler", "trainer.log_every_n_steps", "trainer.default_root_dir", "data.dir", "data.cache"),
    *("data.cache_dir", "data.on_device", "data.num_workers", "data.strict", "callbacks.pruning"),
    *("callbacks.progress", "callbacks.image_logger", "callbacks.learning_rate"),
)


def comparable_settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings that a job's score depends on, by dotted key, with interpolations left unresolved."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    plain.pop("hydra", None)
    return {key: value for key, value in flatten_dict(plain).items() if not is_below(key, NOT_COMPARED)}


def is_below(key: str, parents: Iterable[str]) -> bool:
    """Return whether a dotted key is one of `parents`, or lies below one."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def settings_digest(config: DictConfig, *more: Any) -> str:
    """Return a digest of the comparable settings, of what a job does (`fit`, `test`), and of `more`."""
    content = [comparable_settings(config), config.fit, config.test, *more]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
