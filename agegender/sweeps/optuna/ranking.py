"""Rank the trials of a study, and format them for tables and pages."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def rank_trials(study: Study) -> list[FrozenTrial]:
    """Return the finished trials: completed ones, best first, then pruned ones, best first, then failed ones."""
    sign = -1 if study.direction is StudyDirection.MAXIMIZE else 1
    trials = study.get_trials(deepcopy=False, states=tuple(STATES))
    order = list(STATES)
    return sorted(trials, key=lambda trial: (order.index(trial.state), sign * (trial.value or 0), trial.number))


def varied_params(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the parameters that were varied in any of the trials, in the order of first use."""
    return list(dict.fromkeys(key for trial in sorted(trials, key=lambda each: each.number) for key in trial.params))


def format_value(value: object) -> str:
    """Format a value for display: floats with four significant digits, None as an empty string."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def row_of(trial: FrozenTrial, keys: Sequence[str]) -> list[str]:
    """Return a trial's table cells: number, state, score, epochs, parameters, error."""
    epochs = max(trial.intermediate_values, default=None)
    varied = [format_value(trial.params.get(key)) for key in keys]
    return [
        str(trial.number),
        STATES[trial.state],
        format_value(trial.value),
        format_value(epochs),
        *varied,
        error_of(trial),
    ]


def error_of(trial: FrozenTrial) -> str:
    """Return the message of a failed trial, else an empty string."""
    return str(trial.user_attrs.get("error", ""))


def count_states(trials: Sequence[FrozenTrial]) -> str:
    """Return the number of trials in words, in total and by state."""
    states = [trial.state for trial in trials]
    parts = [f"{states.count(state)} {name}" for state, name in STATES.items() if state in states]
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}: {', '.join(parts)}"
