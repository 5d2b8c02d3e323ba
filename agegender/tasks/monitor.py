"""The metric that selects the best checkpoint, and whether higher is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agegender.config.validation import validate_choice
from agegender.errors import require
from agegender.tasks.task import build_tasks


def metric_modes(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the names of all validation metrics of these tasks, with `min` or `max`: the default monitor first.

    Raises:
        AgeGenderError: A task can't be built.
    """
    modes: dict[str, str] = {}
    built = build_tasks(tasks)
    for name, task in built.items():
        for key, spec in task.metrics().items():
            modes[f"val/{name}_{key}"] = "max" if spec.metric.higher_is_better else "min"
    return modes | dict.fromkeys(["val/loss", *(f"val/{name}_loss" for name in built)], "min")


def find_monitor(tasks: Mapping[str, Mapping[str, Any]], given: str | None) -> tuple[str, str]:
    """Return the monitored metric and its mode, `min` or `max`.

    Args:
        tasks: The tasks of the config.
        given: The setting `monitor`; None for the first metric of the first task.

    Raises:
        AgeGenderError: There is no such metric.
    """
    modes = metric_modes(tasks)
    monitor = next(iter(modes)) if given is None else given
    validate_choice("monitor", monitor, modes)
    return monitor, modes[monitor]


def with_monitor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose `monitor`, and each callback's null `monitor` and `mode`, are filled in.

    Raises:
        AgeGenderError: A metric is not among those of the tasks.
    """
    modes = metric_modes(settings["tasks"])
    monitor = settings["monitor"] or next(iter(modes))
    validate_choice("monitor", monitor, modes)
    callbacks = dict(settings.get("callbacks") or {})
    for name, node in callbacks.items():
        if isinstance(node, Mapping) and "monitor" in node:
            watched = node["monitor"] or monitor
            callbacks[name] = filled = {**node, "monitor": watched}
            if "mode" in node and str(watched).startswith("val/"):
                validate_choice(f"callbacks.{name}.monitor", watched, modes)
                right = filled["mode"] = modes[watched]
                given = f"callbacks.{name}.mode={node['mode']}"
                require(node["mode"] in (None, right), f"{given}, but {right} is best for {watched}: remove it")
    return {**settings, "monitor": monitor, "callbacks": callbacks}
