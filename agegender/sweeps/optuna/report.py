"""Results of a study: a table on the terminal, `trials.csv`, and a page of plots, `study.html`."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from agegender.distributed.launcher import script
from agegender.sweeps.optuna.pruning import PRUNED
from agegender.sweeps.optuna.space import as_overrides
from agegender.system.files import atomic_write

_STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_SHOWN = 10  # maximum number of trials in the table on the terminal


def rank_trials(study: Study) -> list[FrozenTrial]:
    """Return the finished trials: completed ones, best first, then pruned ones, best first, then failed ones."""
    sign = -1 if study.direction is StudyDirection.MAXIMIZE else 1
    trials = study.get_trials(deepcopy=False, states=tuple(_STATES))
    order = list(_STATES)
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
        _STATES[trial.state],
        format_value(trial.value),
        format_value(epochs),
        *varied,
        _error(trial),
    ]


def _error(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("error", ""))


def write_study(study: Study, monitor: str, folder: Path, page: bool = True) -> None:
    """Write `trials.csv` in full precision, and with `page` also `study.html`."""
    trials = rank_trials(study)
    keys = varied_params(trials)
    with atomic_write(folder / "trials.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", monitor, "pruned_after_epoch", "seconds", *keys, "error"])
        for trial in trials:
            seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
            varied = [trial.params.get(key, "") for key in keys]
            score = "" if trial.value is None else trial.value
            pruned = trial.user_attrs.get(PRUNED, "")
            writer.writerow([trial.number, _STATES[trial.state], score, pruned, seconds, *varied, _error(trial)])
    if page and trials:
        from agegender.sweeps.optuna.page import write_trials_page  # imports matplotlib

        write_trials_page(study, monitor, folder / "study.html")


def print_study(study: Study, monitor: str, folder: Path, fixed: Sequence[str]) -> None:
    """Print the best trials, the counts by state, and the command that tests the best trial.

    Args:
        study: The study.
        monitor: Name of the score.
        folder: Folder of the study.
        fixed: Overrides that all trials share.
    """
    from rich.console import Console
    from rich.table import Table

    trials = rank_trials(study)
    keys = varied_params(trials)
    table = Table("trial", "state", monitor, "epochs", *keys, title=f"study: {folder}")
    for trial in trials[:_SHOWN]:
        table.add_row(*row_of(trial, keys)[:-1])
    console = Console()
    console.print(table)
    for line in _last_lines(trials, folder, fixed):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _last_lines(trials: list[FrozenTrial], folder: Path, fixed: Sequence[str]) -> list[str]:
    lines = [f"{count_states(trials)}; all of them: {folder / 'trials.csv'}, {folder / 'study.html'}"]
    if trials and trials[0].state is TrialState.COMPLETE:
        best = trials[0]
        kept = [item for item in fixed if not item.lstrip("+~").startswith(("sweep=", "callbacks.pruning"))]
        command = [*kept, *as_overrides(best.params), "fit=false", f"weights={folder / str(best.number)}"]
        lines.append(f"measure the best on the test faces, once: {script('train')} {shlex.join(command)}")
    return lines


def count_states(trials: Sequence[FrozenTrial]) -> str:
    """Return the number of trials in words, in total and by state."""
    states = [trial.state for trial in trials]
    parts = [f"{states.count(state)} {name}" for state, name in _STATES.items() if state in states]
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}: {', '.join(parts)}"
