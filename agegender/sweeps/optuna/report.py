"""Results of a study: a table on the terminal, `trials.csv`, and a page of plots, `study.html`."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from agegender.distributed.launcher import script
from agegender.sweeps.optuna.pruning import PRUNED
from agegender.sweeps.optuna.ranking import (
    STATES,
    count_states,
    error_of,
    rank_trials,
    row_of,
    varied_params,
)
from agegender.sweeps.optuna.space import as_overrides
from agegender.system.files import atomic_write
from agegender.system.terminal import console

_MAX_ROWS = 10  # maximum number of trials in the table on the terminal


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
            writer.writerow([trial.number, STATES[trial.state], score, pruned, seconds, *varied, error_of(trial)])
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
    from rich.table import Table

    trials = rank_trials(study)
    keys = varied_params(trials)
    table = Table("trial", "state", monitor, "epochs", *keys, title=f"study: {folder}")
    for trial in trials[:_MAX_ROWS]:
        table.add_row(*row_of(trial, keys)[:-1])
    screen = console()
    screen.print(table)
    for line in _summary_lines(trials, folder, fixed):
        screen.print(line, soft_wrap=True)


def _summary_lines(trials: list[FrozenTrial], folder: Path, fixed: Sequence[str]) -> list[str]:
    lines = [f"{count_states(trials)}; all of them: {folder / 'trials.csv'}, {folder / 'study.html'}"]
    if trials and trials[0].state is TrialState.COMPLETE:
        best = trials[0]
        kept = [item for item in fixed if not item.lstrip("+~").startswith(("sweep=", "callbacks.pruning"))]
        command = [*kept, *as_overrides(best.params), "fit=false", f"weights={folder / str(best.number)}"]
        lines.append(f"measure the best on the test faces, once: {script('train')} {shlex.join(command)}")
    return lines
