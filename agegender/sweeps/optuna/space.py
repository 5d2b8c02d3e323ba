"""The search space of a study: conversion of Hydra's sweep syntax to Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import create_study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from agegender.errors import AgeGenderError, require

Space = dict[str, BaseDistribution]


def read_space(params: Mapping[str, str], arguments: list[str], loader: ConfigLoader) -> tuple[list[str], Space]:
    """Split overrides into fixed ones, which all trials share, and the search space.

    `a,b` and `choice(a,b)` are categorical; `interval(a,b)` is a float range, `int(interval(a,b))` an integer range,
    `range(a,b,step)` a range with a step; `tag(log,...)` samples on a logarithmic scale.

    Args:
        params: Search space of the config, by key.
        arguments: Overrides on the command line. They take precedence over `params`: a single value fixes a setting.
        loader: Hydra's config loader, for `glob(...)`.

    Returns:
        The fixed overrides as they were written, and a distribution by key.

    Raises:
        AgeGenderError: Nothing is varied, or a range is empty or invalid.
    """
    lines = [f"{key}={value}" for key, value in params.items()] + arguments
    overrides = {
        item.get_key_element(): item for item in OverridesParser.create(config_loader=loader).parse_overrides(lines)
    }
    fixed = [str(item.input_line) for item in overrides.values() if not item.is_sweep_override()]
    space = {key: _distribution(key, item) for key, item in overrides.items() if item.is_sweep_override()}
    require(bool(space), "sweep=optuna has nothing to vary: give a setting several values, such as optim.lr=1e-3,3e-3")
    return fixed, space


def _distribution(key: str, override: Override) -> BaseDistribution:
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None and value.end is not None
            log = "log" in value.tags
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log)
            return FloatDistribution(value.start, value.end, log=log)
        if isinstance(value, RangeSweep) and not value.shuffle and value.step > 0:
            numbers = list(value.range())
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(value.step))
            return FloatDistribution(numbers[0], numbers[-1], step=value.step)
        # As text in Hydra's syntax: a choice may be a list or an option of a config group, which Optuna can't store.
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise AgeGenderError(f"{override.input_line} is not a valid search range of {key}: {error}") from None


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Return a trial's values as Hydra's overrides."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in params.items()]


def sample_point(space: Space) -> dict[str, Any]:
    """Return one point of the space, to check that a config can be composed with it."""
    study = create_study()  # in memory
    return study.ask(space).params
