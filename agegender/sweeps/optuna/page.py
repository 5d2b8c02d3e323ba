"""The HTML page of a study: optimization history, effect of each setting, and all trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.distributions import CategoricalDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from agegender.evaluation.html.page import Page, Plot, Section, Table, write_page
from agegender.evaluation.html.plot_style import BLUE, GRAY, ORANGE, new_plot, to_png
from agegender.sweeps.optuna.ranking import count_states, format_value, rank_trials, row_of, varied_params

_COLORS = {TrialState.COMPLETE: BLUE, TrialState.PRUNED: GRAY}
_NAMES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned"}


def write_trials_page(study: Study, monitor: str, path: Path) -> None:
    """Write the page of a study as a self-contained HTML file.

    Args:
        study: The study.
        monitor: Name of the score.
        path: The HTML file.
    """
    trials = rank_trials(study)
    keys = varied_params(trials)
    best = next((trial for trial in trials if trial.state is TrialState.COMPLETE), None)
    sentence = ""
    facts = [
        ("study", str(path.parent)),
        ("trials", count_states(trials)),
        ("ranked by", f"{monitor}, on validation faces"),
    ]
    if best:
        settings = ", ".join(f"{key}={format_value(value)}" for key, value in best.params.items())
        score = format_value(best.value)
        sentence = f"The best of {len(trials)} trials reached {monitor} {score}: trial {best.number}."
        facts.append(("best", f"trial {best.number}: {score} with {settings}"))
    measured = [trial for trial in trials if trial.value is not None]
    header = ["trial", "state", monitor, "epochs", *keys, "error"]
    sections = [Section("Trials", tables=[Table(header, [row_of(trial, keys) for trial in trials])])]
    if measured:
        lower = study.direction is StudyDirection.MINIMIZE
        plots = [_history(measured, monitor, lower), _curves(measured, monitor)]
        text = "Each dot is a trial. A slope or a valley is an effect of the setting; a shapeless cloud shows none."
        effects = [_effect(measured, key, monitor, number) for number, key in enumerate(keys)]
        sections = [Section("The search", plots=plots), Section("The settings", text, plots=effects), *sections]
    note = "The best of many trials has an optimistic validation score, because it was selected by it: test it once."
    write_page(Page(f"Study {study.study_name}", facts, sections, [note], sentence), path)


def _history(trials: Sequence[FrozenTrial], monitor: str, lower: bool) -> Plot:
    figure, axes = new_plot()
    _scatter(axes, [(trial.number, trial) for trial in trials])
    done = sorted((trial for trial in trials if trial.state is TrialState.COMPLETE), key=lambda trial: trial.number)
    best: list[float] = []
    for trial in done:
        value = float(trial.value or 0)
        best.append(value if not best else min(best[-1], value) if lower else max(best[-1], value))
    if best:
        numbers = [*(trial.number for trial in done), max(trial.number for trial in trials)]
        axes.step(numbers, [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    axes.set(xlabel="trial", ylabel=monitor)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return Plot("course", "The score of each trial, and the best so far.", to_png(figure))


def _curves(trials: Sequence[FrozenTrial], monitor: str) -> Plot:
    figure, axes = new_plot()
    for trial in trials:
        epochs = sorted(trial.intermediate_values)
        values = [trial.intermediate_values[epoch] for epoch in epochs]
        axes.plot(epochs, values, color=_COLORS[trial.state], alpha=0.6, linewidth=1, marker=".", markersize=3)
    axes.set(xlabel="epoch", ylabel=monitor)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Plot("curves", "Score by epoch; pruned trials, in gray, end where they were stopped.", to_png(figure))


def _effect(trials: Sequence[FrozenTrial], key: str, monitor: str, number: int) -> Plot:
    trials_with_key = [trial for trial in trials if key in trial.params]
    figure, axes = new_plot()
    distribution = trials_with_key[0].distributions[key] if trials_with_key else None
    if isinstance(distribution, CategoricalDistribution):
        choices = [format_value(choice) for choice in distribution.choices]
        _scatter(axes, [(choices.index(format_value(trial.params[key])), trial) for trial in trials_with_key])
        axes.set_xticks(range(len(choices)), choices)
    else:
        _scatter(axes, [(trial.params[key], trial) for trial in trials_with_key])
        if getattr(distribution, "log", False):
            axes.set_xscale("log")
    axes.set(xlabel=key, ylabel=monitor)
    return Plot(f"setting_{number}", f"{key} and the score.", to_png(figure))


def _scatter(axes: Axes, points_by_trial: Sequence[tuple[float, FrozenTrial]]) -> None:
    for state, color in _COLORS.items():
        points = [(x, trial.value) for x, trial in points_by_trial if trial.state is state]
        if points:
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, color=color, s=22, label=_NAMES[state])
