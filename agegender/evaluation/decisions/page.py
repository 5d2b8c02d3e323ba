"""The sections of a report about decisions: age limits, P(age >= T), and selective prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agegender.evaluation.decisions import plots as draw
from agegender.evaluation.decisions.decisions import Decisions
from agegender.evaluation.decisions.selective import SelectiveMetrics
from agegender.evaluation.decisions.thresholds import MARGIN, NEAR, LimitMetrics, Subgroup, age_task
from agegender.evaluation.html.metric_format import (
    ACCURACY,
    IN_UNITS,
    PERCENT,
    Form,
    capitalize,
    format_interval,
    format_number,
    with_unit,
)
from agegender.evaluation.html.page import Section, Table
from agegender.evaluation.report.analysis import SMALL_SAMPLE
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.tasks.info import TaskInfo

WARNING = (
    "These rates are why such a model must not decide about access or verify an age: many of those just under a limit "
    "pass, others who are old enough are turned away, and the rates differ between groups. The test faces come "
    "neither from the cameras nor from the people of any such use."
)


def decision_sections(decisions: Mapping[str, Decisions], tasks: Sequence[TaskInfo]) -> list[Section]:
    """Return the sections of one run or two.

    Args:
        decisions: By the run's label.
        tasks: The tasks of the runs.
    """
    return [*_limit_sections(decisions, tasks), *_selective_section(decisions, tasks)]


def _limit_sections(decisions: Mapping[str, Decisions], tasks: Sequence[TaskInfo]) -> list[Section]:
    skipped = sorted({limit for found in decisions.values() for limit in found.skipped})
    measured = {label: found.limits for label, found in decisions.items() if found.limits}
    if age_task(tasks) is None or not (skipped or measured):
        return []
    none = f"Without test faces on both sides of {', '.join(map(str, skipped))} years: not measured." if skipped else ""
    if not measured:
        return [Section("Age thresholds", none)]
    text = (
        f"{WARNING} A face passes if its predicted age is at least the required one: the limit itself, or a challenge "
        f"age, here {MARGIN} years above it, as in Challenge 25 for a limit of 18. The rates are counted as in NIST IR "
        f"8525. The groups' ages differ, which changes their rates too, less so among those at most {NEAR} years under "
        f"a limit. Intervals from fewer than {SMALL_SAMPLE} faces are unreliable. {none}"
    )
    tables = [_rates(limits, label) for label, limits in measured.items()]
    for near in (False, True):
        tables += [table for label, limits in measured.items() if (table := _subgroups(limits, label, near))]
    plots = [
        draw_one(limits, label)
        for label, limits in measured.items()
        for draw_one in (draw.passes_plot, draw.challenge_plot)
    ]
    sections = [Section("Age thresholds", text.strip(), tables, plots)]
    stated = {label: [limit for limit in limits if limit.probability is not None] for label, limits in measured.items()}
    stated = {label: limits for label, limits in stated.items() if limits}
    return [*sections, _probabilities(stated)] if stated else sections


def _percent(found: Estimate) -> tuple[str, str]:
    return format_interval(found, PERCENT)


def _cell(found: Estimate, form: Form = PERCENT) -> str:
    """Return an estimate and its interval in one cell."""
    value, interval = format_interval(found, form)
    return f"{value} ({interval})"


def _rates(limits: Sequence[LimitMetrics], label: str) -> Table:
    interval = "95 % interval"
    header = [
        *("limit", "required", "under it", "pass, %", interval),
        *(f"of these, {NEAR} years or less under it", "pass, %", interval),
        *("of the limit or more", "turned away, %", interval),
    ]
    rows = []
    for limit in limits:
        faces = [f"{count:,}" for count in (limit.faces.under, limit.faces.near, limit.faces.over)]
        for challenge in (limit.limit, limit.limit + MARGIN):
            rates = limit.challenges[challenge]
            parts = zip(faces, (rates.passed, rates.passed_near, rates.refused), strict=True)
            cells = (cell for count, found in parts for cell in (count, *_percent(found)))
            rows.append((str(limit.limit), str(challenge), *cells))
    return Table(header, rows, label)


def _subgroups(limits: Sequence[LimitMetrics], label: str, near: bool) -> Table | None:
    """Return who of each subgroup passes under each limit; None without labels that are classes.

    Args:
        limits: Metrics of the limits.
        label: The run's label.
        near: Only the faces at most `NEAR` years under the limit, whose ages are alike in all groups.
    """
    names = dict.fromkeys(
        (by, part.name) for limit in limits for by, parts in limit.subgroups.items() for part in parts
    )
    rows = [(f"{by}: {name}", *(_passed(_part(limit, by, name), near) for limit in limits)) for by, name in names]
    header = (
        "",
        *(f"{limit.limit - NEAR} to {limit.limit - 1}" if near else f"under {limit.limit}" for limit in limits),
    )
    which = f"at most {NEAR} years under the limit" if near else "under the limit"
    caption = f"Faces {which} who pass, % (95 % interval; number of these faces)"
    return Table(header, rows, f"{label}: {caption}" if label else caption) if rows else None


def _part(limit: LimitMetrics, by: str, name: str) -> Subgroup | None:
    return next((part for part in limit.subgroups.get(by, []) if part.name == name), None)


def _passed(part: Subgroup | None, near: bool) -> str:
    count = 0 if part is None else part.faces.near if near else part.faces.under
    if part is None or not count:
        return "no faces"
    value, interval = _percent(part.rates.passed_near if near else part.rates.passed)
    return f"{value} ({interval}; {count:,})"


def _probabilities(stated: Mapping[str, Sequence[LimitMetrics]]) -> Section:
    """Return the calibration of P(age >= T); of each run at least one limit has that probability."""
    tables = []
    for label, limits in stated.items():
        rows = [
            (str(limit.limit), _SOURCES[limit.probability], *format_interval(limit.ece, (1, 4)))
            for limit in limits
            if limit.ece is not None and limit.probability is not None
        ]
        tables.append(Table(("T", "probability from", "ECE", "95 % interval"), rows, label))
    text = (
        "P(age >= T) is that of predictions.csv if it has such columns (a run with thresholds=[18,25]), else that of a "
        "normal distribution around the predicted age with the predicted standard deviation. Most faces are far from a "
        "limit, with probabilities near 0 or 1, which makes the ECE small."
    )
    plots = [draw.probability_plot(limits, label) for label, limits in stated.items()]
    return Section("Calibration of P(age >= T)", text, tables, plots)


_SOURCES = {"predicted": "predictions.csv", "normal": "age and standard deviation"}


def _selective_section(decisions: Mapping[str, Decisions], tasks: Sequence[TaskInfo]) -> list[Section]:
    tables, plots = [], []
    for task in tasks:
        runs = {label: found.selective[task.name] for label, found in decisions.items() if task.name in found.selective}
        if runs:
            tables += [_coverages(task, found, label) for label, found in runs.items()]
            plots.append(draw.risk_coverage_plot(task, runs))
    text = (
        "The error over the fraction of the faces that is answered, the most certain first: by the width of the 80 % "
        "interval, or by the probability of the predicted class. The AURC is the area under that curve, the mean error "
        "over all fractions (Geifman and El-Yaniv, NeurIPS 2017); faces of equal certainty are taken in random order. "
        "The certain faces differ from the others in age too: see the coverage by age band."
    )
    return [Section("Selective prediction", text, tables, plots)] if tables else []


def _coverages(task: TaskInfo, found: SelectiveMetrics, label: str) -> Table:
    number = task.kind == "number"
    form = IN_UNITS if number else ACCURACY
    risk = with_unit(f"{task.name} MAE", task) if number else f"{task.name} error, %"
    limit = with_unit("interval at most", task) if number else "probability at least"
    rows = [
        (f"{100 * coverage:.0f}", *format_interval(each, form), format_number(last, (1, 1 if number else 3)))
        for coverage, each, last in zip(found.coverage, found.risk, found.limit, strict=True)
    ]
    area = f"AURC {_cell(found.aurc, form)}"
    header = ("answered, %", risk, "95 % interval", limit)
    return Table(header, rows, " ".join(filter(None, (label, f"{capitalize(task.name)}:", area))))
