"""What a study varies: Hydra's sweep syntax on one side, Optuna's distributions on the other."""

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
    """Sort overrides into those that all trials share and those that a study varies.

    `a,b` and `choice(a,b)` are one of these; `interval(a,b)` a number between, `int(interval(a,b))` a whole one,
    `range(a,b,step)` one of a row; `tag(log,...)` makes equal factors equally likely.

    Args:
        params: The space that the config proposes, by key.
        arguments: The command line's overrides. They come before `params`: a single value fixes a setting.
        loader: Hydra's, for `glob(...)`.

    Returns:
        The shared overrides as they were written, and a distribution by key.

    Raises:
        AgeGenderError: Nothing is varied, or a range is none.
    """
    lines = [f"{key}={value}" for key, value in params.items()] + arguments
    overrides = {
        item.get_key_element(): item for item in OverridesParser.create(config_loader=loader).parse_overrides(lines)
    }
    fixed = [str(item.input_line) for item in overrides.values() if not item.is_sweep_override()]
    space = {key: _distribution(key, item) for key, item in overrides.items() if item.is_sweep_override()}
    require(bool(space), "sweep=optuna has nothing to vary: every setting is fixed; give one as optim.lr=1e-3,3e-3")
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
        # As text in Hydra's syntax: a choice may be a list or the option of a group, which Optuna can't keep.
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise AgeGenderError(f"{override.input_line} is no range of {key} to search: {error}") from None


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Return a trial's values as Hydra's overrides."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in params.items()]


def any_point(space: Space) -> dict[str, Any]:
    """Return one point of the space, to see whether a config can be composed with it."""
    study = create_study()  # in memory
    return study.ask(space).params
