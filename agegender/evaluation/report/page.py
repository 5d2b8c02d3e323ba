"""The page of a test report: its metrics as tables, plots and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agegender.evaluation.compare.section import mcnemar_section
from agegender.evaluation.decisions.page import decision_sections
from agegender.evaluation.fairness.section import fairness_section
from agegender.evaluation.html.metric_format import (
    NOTHING,
    PERCENT,
    MetricColumn,
    capitalize,
    format_interval,
    format_number,
    metric_column,
    probability_titles,
    with_unit,
)
from agegender.evaluation.html.overview import big_numbers, overview_sentence
from agegender.evaluation.html.page import Page, Section, Table
from agegender.evaluation.label_noise.section import floors, noise_section
from agegender.evaluation.report import plots as draw
from agegender.evaluation.report.analysis import SMALL_SAMPLE
from agegender.evaluation.report.comparison import Report, baseline
from agegender.evaluation.report.curves import curve_titles
from agegender.evaluation.report.examples import face_sections
from agegender.evaluation.report.facts import facts_of, notes_of, run_name
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics, TaskMetrics
from agegender.evaluation.robustness.page import robustness_section
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.calibration import BINS
from agegender.evaluation.statistics.metrics import AGE
from agegender.evaluation.statistics.task_values import is_subgroup_metric
from agegender.tasks.info import TaskInfo


def build_page(report: Report, more: Sequence[Section] = ()) -> Page:
    """Return the page of one run or two; `more` sections stand at its end."""
    facts = {label: facts_of(run, report.findings[label]) for label, run in report.runs.items()}
    single = facts.get("")
    names = [run.folder.resolve().name for run in report.runs.values()]
    numbers, classes = (
        [task for task in report.tasks if (task.kind == "number") == number] for number in (True, False)
    )
    slices = dict.fromkeys(label for found in report.findings.values() for label in found.slices)
    sections = [
        _headline(report),
        *([mcnemar_section(report.mcnemar)] if report.mcnemar else []),
        _curves(report),
        *(_number(report, task) for task in numbers),
        *(_slices(report, label) for label in slices),
        fairness_section(report.fairness, report.tasks),
        *(section for task in classes for section in _classes(report, task)),
        *(_intervals(report, task) for task in numbers if report.of_task(task, TaskMetrics)),
        noise_section(report.label_noise, report.tasks),
        *decision_sections(report.decisions, report.tasks),
        robustness_section(report.runs),
    ]
    for label, run in report.runs.items():
        sections += face_sections(run.predictions, report.findings[label], label)
    sections += more
    if single is None:
        sections.insert(0, _runs(report, facts))
        single = {label: str(run.folder) for label, run in report.runs.items()}
    measured = [
        (task, {run: found.metrics for run, found in report.of_task(task, TaskMetrics).items()})
        for task in report.tasks
    ]
    return Page(
        title=f"Test report of {' and '.join(names)}",
        facts=[*single.items(), ("made by", report.command)],
        sections=sections,
        notes=notes_of(report),
        sentence=overview_sentence(measured),
        numbers=big_numbers(measured, {label: found.images for label, found in report.findings.items()}),
    )


def _runs(report: Report, facts: dict[str, dict[str, str]]) -> Section:
    names = list(dict.fromkeys(name for column in facts.values() for name in column if name != "run"))
    rows = [(name, *(column.get(name, NOTHING) for column in facts.values())) for name in names]
    return Section("Runs", " ".join(report.warnings), tables=[Table(("", *facts), rows)])


def headline_lines(report: Report) -> list[str]:
    """Return the headline metrics for a terminal, one line each."""
    lines = []
    for metric in _shown(report):
        values = (
            (label, *replace(metric, sign=sign).cells(found))
            for label, found, sign in _compared(report)
            if metric.name in found
        )
        lines.append(
            f"{metric.title}: " + ", ".join(f"{label} {value} ({ends})".strip() for label, value, ends in values)
        )
    return lines


def _shown(report: Report) -> list[MetricColumn]:
    """Return the headline metrics; those of tasks without any known label are left out."""
    columns = (
        metric_column(task, metric, interval=True)
        for task in report.tasks
        for found in report.of_task(task, TaskMetrics).values()
        for metric in found.headline
    )
    return list(dict.fromkeys(columns))


def _compared(report: Report) -> list[tuple[str, dict[str, Estimate], str]]:
    """Return label, metrics and sign format of each pair of columns: the runs, and their difference."""
    columns = [(label, findings.headline, "") for label, findings in report.findings.items()]
    return columns + ([("B minus A", report.difference, "+")] if report.difference else [])


def _headline_table(report: Report) -> Table:
    compared, shown = _compared(report), _shown(report)
    header = ["", *(cell for label, _, _ in compared for cell in (label or "test", "95 % interval"))]
    single = report.runs.get("")
    constant = baseline(single, [metric.name for metric in shown]) if single else {}
    rows = []
    for metric in shown:
        row = [metric.title, *(cell for _, found, sign in compared for cell in replace(metric, sign=sign).cells(found))]
        given = constant.get(metric.name)
        rows.append(row + (["" if given is None else format_number(given, metric.form)] if constant else []))
    own = single and single.results.get("baseline/from")  # of a test without training images
    title = "best constant prediction" if own else "constant prediction"
    return Table([*header, title] if constant else header, rows)


def _headline(report: Report) -> Section:
    text = (
        f"Intervals come from {report.settings['resamples']:,} bootstrap resamples of the test images. They "
        "show the variation between samples of test images, not between trainings. "
    )
    if all(run.predictions.duplicates_known for run in report.runs.values()):
        text += "Copies of one photograph are drawn together. "
    else:
        text += "Copies of one photograph are unknown (not in index.csv): each file is drawn by itself. "
    if report.difference:
        text += "The difference is paired: both runs are evaluated on the same resamples. "
    if any(task.kind == "number" for task in report.tasks):
        text += "CS@k is the fraction of predictions within k of the truth. "
    if any(task.kind != "number" for task in report.tasks):
        text += "A class is answered if its probability is at least the run's min_confidence, chosen on validation "
        text += "faces; accuracy counts all faces."
    return Section("Metrics", text.strip(), tables=[_headline_table(report)])


def _curves(report: Report) -> Section:
    curves = {label: run.curves for label, run in report.runs.items()}
    without = [label for label, run in report.runs.items() if not curve_titles([run.curves], report.tasks)]
    lines = [_no_curves(report.runs[label], label) for label in without]
    if len(without) < len(curves):
        best = {label: run.results.get("best_epoch") for label, run in report.runs.items()}
        lines.append("Training metrics are means over the epoch, during which the weights still change.")
        if any(best.values()):
            lines.append("The dotted line marks the epoch selected by validation.")
        if len(curves) > 1:
            lines.append("Dashed: training; solid: validation.")
        bounds = floors(report.label_noise, report.tasks)
        if bounds:
            lines.append("The dash-dotted line marks the label noise of copies, see below.")
        return Section("Curves", " ".join(lines), plots=draw.curve_plots(curves, best, report.tasks, bounds))
    return Section("Curves", " ".join(lines))


def _no_curves(run: Run, label: str) -> str:
    if run.results.get("pooled"):
        return f"{run_name(label)} is pooled from folds: the curves of each are in the report of its own folder."
    if run.results.get("epochs") == 0:
        return f"{run_name(label)} was not trained (fit=false), so it has no curves."
    return f"{run_name(label)} has no curves: no logger wrote them, or their files were removed."


def _unknown(report: Report, task: TaskInfo) -> str:
    """Return a sentence about the runs without any test image that has this label; empty if there are none."""
    known = report.of_task(task, TaskMetrics)
    without = [run_name(run) for run, found in report.findings.items() if task.name in found.tasks and run not in known]
    return f"{' and '.join(without)} was tested on images without any {task.label}." if without else ""


def _number(report: Report, task: TaskInfo) -> Section:
    known = report.of_task(task, NumberMetrics)
    plots = [draw.scatter_plot(report.runs[run].predictions, task, run) for run in known]
    scored = {run: found for run, found in known.items() if len(found.limits)}
    noise = report.label_noise.get(task.name)
    plots += [draw.cumulative_score_plot(scored, None if noise is None else noise.errors)] if scored else []
    return Section(capitalize(task.name), _unknown(report, task), plots=plots)


def _slices(report: Report, label: str) -> Section:
    """Return the metrics by age band, or by class of another label."""
    known = {task.name: report.of_task(task, TaskMetrics) for task in report.tasks if report.of_task(task, TaskMetrics)}
    tasks = [task for task in report.tasks if task.name in known]
    partly = any(each.images < report.findings[run].images for found in known.values() for run, each in found.items())
    columns, kind = [column for task in tasks for column in _slice_columns(report, task)], draw.slice_title(label)
    header = [kind, "images", *(f"with {name}" for name in known if partly)]
    header += [title for column in columns for title in column.header]
    tables, few = [], []
    for run, findings in report.findings.items():
        rows = []
        for part in findings.slices.get(label, []):
            counts = [part.images, *(part.known.get(name, 0) for name in known if partly)]
            cells = (cell for column in columns for cell in column.cells(part.metrics))
            rows.append((part.name, *(f"{count:,}" for count in counts), *cells))
            few += [part.name] if part.images < SMALL_SAMPLE and part.name not in few else []
        tables.append(Table(header, rows, run))
    lines = ["Bias is the mean of predicted minus true value."] if any(task.kind == "number" for task in tasks) else []
    if partly:
        lines.append("The metrics of a task are computed from the images that have its label.")
    if few:
        lines.append(f"Fewer than {SMALL_SAMPLE} images in {', '.join(few)}: these intervals are unreliable.")
    return Section(f"By {kind}", " ".join(lines), tables, draw.slice_plots(report.findings, tasks, label))


def _slice_columns(report: Report, task: TaskInfo) -> list[MetricColumn]:
    measured = dict.fromkeys(metric for found in report.of_task(task, TaskMetrics).values() for metric in found.metrics)
    return [
        metric_column(task, metric, PERCENT if metric == "acc" else None, interval=metric in ("mae", "acc"))
        for metric in measured
        if is_subgroup_metric(metric) and metric != "coverage"
    ]


def _classes(report: Report, task: TaskInfo) -> list[Section]:
    known = report.of_task(task, ClassMetrics)
    missing = [run_name(run) for run, found in known.items() if found.roc is None and task.kind == "binary"]
    plots = [draw.roc_plot(known)] if any(found.roc for found in known.values()) else []
    plots += [draw.confusion_plot(found, run) for run, found in known.items()]
    only = f"{' and '.join(missing)} has only one {task.name} among its test images: no ROC, no AUROC."
    section = Section(capitalize(task.name), f"{only if missing else ''} {_unknown(report, task)}".strip(), plots=plots)
    return [section, _calibration(task, known)] if known else [section]


def _calibration(task: TaskInfo, known: Mapping[str, ClassMetrics]) -> Section:
    probability, outcome = probability_titles(task)
    tables = []
    for label, found in known.items():
        bins = found.reliability
        rows = [
            (f"{low:.1f} to {low + 1 / BINS:.1f}", f"{images:,}", *(format_number(part, (1, 3)) for part in parts))
            for low, images, *parts in zip(bins.low, bins.images, bins.probability, bins.observed, strict=True)
        ]
        tables.append(Table((probability, "images", f"mean {probability}", f"fraction {outcome}"), rows, label))
    text = (
        f"The expected calibration error (ECE) is the mean distance from the diagonal over {BINS} bins of equal "
        "width, weighted by their images. Sampling noise biases it upward, and resampling adds to that: the interval "
        "lies slightly too high, the more so the fewer images there are."
    )
    return Section(f"Calibration of {probability}", text, tables, [draw.reliability_plot(known)])


def _intervals(report: Report, task: TaskInfo) -> Section:
    lines: list[str] = []
    tables: list[Table] = []
    known = report.of_task(task, NumberMetrics)
    for label, found in known.items():
        spread = found.spread
        if spread is None:
            lines.append(f"{run_name(label)} predicts no {task.name} intervals.")
            continue
        inside, interval = format_interval(found.metrics["coverage"], PERCENT)
        lines.append(f"{run_name(label)}: {inside} % of the labels lie inside the 80 % intervals ({interval}).")
        if spread.images < found.images:
            lines.append(f"Only {spread.images:,} of {found.images:,} images have a predicted standard deviation.")
        rows = [(f"{100 * a:.0f} %", f"{100 * b:.1f} %") for a, b in zip(spread.nominal, spread.observed, strict=True)]
        caption = f"Intervals of a normal distribution with the predicted standard deviation {label}".strip()
        tables.append(Table(("nominal", "inside"), rows, caption))
        bins = zip(spread.bin_images, spread.bin_std, spread.bin_rmse, strict=True)
        cells = [(f"{std:.2f}", f"{rmse:.2f}", f"{images:,}") for images, std, rmse in bins]
        if len(cells) > 1:
            header = (with_unit("predicted", task), with_unit("RMSE", task), "images")
            tables.append(Table(header, cells, f"Error by predicted standard deviation {label}".strip()))
        else:
            constant = f"{cells[0][0]} {task.unit}".strip()
            lines.append(f"The predicted standard deviation is constant: {constant}, at an RMSE of {cells[0][1]}.")
        column = MetricColumn(f"{task.name}_coverage", "inside, %", PERCENT, interval=True)
        parts = [part for part in report.findings[label].slices.get(AGE, []) if part.known[task.name]]
        bands = [(part.name, *column.cells(part.metrics)) for part in parts]
        if bands:
            tables.append(Table((draw.slice_title(AGE), *column.header), bands, f"The 80 % intervals {label}".strip()))
    plots = [draw.coverage_plot(known)] if tables else []
    if any(found.spread and len(found.spread.bin_std) > 1 for found in known.values()):
        plots.append(draw.spread_plot(known))
    return Section(f"Calibration of the {task.name} intervals", " ".join(lines), tables, plots)
