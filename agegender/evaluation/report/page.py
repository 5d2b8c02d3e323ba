"""The page of a test report: its metrics as tables, plots and text."""

from __future__ import annotations

import math

from agegender.evaluation.html.page import Page, Section, Table
from agegender.evaluation.report import plots as draw
from agegender.evaluation.report.analysis import SMALL_SAMPLE, SUBGROUP_TITLES, SUBGROUPS, RunMetrics
from agegender.evaluation.report.comparison import Report, baseline
from agegender.evaluation.report.curves import curve_names
from agegender.evaluation.report.examples import face_sections
from agegender.evaluation.report.facts import facts_of, notes_of, run_name
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.robustness.page import robustness_section
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.calibration import BINS

# Display name of each metric, and the factor and the decimals that it is shown with.
_YEARS, _PERCENT = (1, 2), (100, 1)
SHOWN: dict[str, tuple[str, tuple[int, int]]] = {
    "age_mae": ("age MAE, years", _YEARS),
    "age_cs5": ("CS@5, %", _PERCENT),
    "age_cs5_whole": ("CS@5 of predictions in whole years, %", _PERCENT),
    "gender_acc": ("gender accuracy, %", (100, 2)),
    "gender_acc_from_5": ("gender accuracy from 5 years of age on, %", (100, 2)),
    "gender_answered": ("genders answered (not unsure), %", _PERCENT),
    "gender_acc_answered": ("gender accuracy of answered, %", (100, 2)),
    "gender_auroc": ("gender AUROC", (1, 4)),
    "gender_ece": ("ECE of p_female", (1, 3)),
}
_CURVES = {
    "age_loss": "age loss",
    "gender_loss": "gender loss",
    "age_mae": "age MAE, years",
    "age_mse": "age MSE, years squared",
    "age_cs5": "CS@5",
    "age_class_acc": "age class accuracy",
    "gender_acc": "gender accuracy",
    "gender_auroc": "gender AUROC",
}
NOTHING = "n/a"


def build_page(report: Report) -> Page:
    """Return the page of one run or two."""
    facts = {label: facts_of(run, report.findings[label]) for label, run in report.runs.items()}
    single = facts.get("")
    names = [run.folder.resolve().name for run in report.runs.values()]
    sections = [
        _headline(report),
        _curves(report),
        _ages(report),
        *(_slices(report, kind) for kind in SUBGROUPS if any(found.slices[kind] for found in report.findings.values())),
        _gender(report),
        _calibration(report),
        _spread(report),
        robustness_section(report.runs),
    ]
    for label, run in report.runs.items():
        sections += face_sections(run.answers, report.findings[label], label)
    if single is None:
        sections.insert(0, _runs(report, facts))
        single = {label: str(run.folder) for label, run in report.runs.items()}
    return Page(
        title=f"Test report of {' and '.join(names)}",
        facts=[*single.items(), ("made by", report.command)],
        sections=sections,
        notes=notes_of(report),
    )


def _runs(report: Report, facts: dict[str, dict[str, str]]) -> Section:
    names = list(dict.fromkeys(name for column in facts.values() for name in column if name != "run"))
    rows = [(name, *(column.get(name, NOTHING) for column in facts.values())) for name in names]
    return Section("Runs", " ".join(report.warnings), tables=[Table(("", *facts), rows)])


def _number(value: float, form: tuple[int, int], sign: str = "") -> str:
    factor, digits = form
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}" if math.isfinite(value) else NOTHING


def _with_interval(found: Estimate, form: tuple[int, int], sign: str = "") -> tuple[str, str]:
    low, high = _number(found.low, form, sign), _number(found.high, form, sign)
    return _number(found.value, form, sign), NOTHING if NOTHING in (low, high) else f"{low} to {high}"


def headline_lines(report: Report) -> list[str]:
    """Return the headline metrics for a terminal, one line each."""
    lines = []
    for name, (title, form) in SHOWN.items():
        found = [(label, *_with_interval(column[name], form, sign)) for label, column, sign in _columns(report)]
        lines.append(f"{title}: " + ", ".join(f"{label} {value} ({ends})".strip() for label, value, ends in found))
    return lines


def _columns(report: Report) -> list[tuple[str, dict[str, Estimate], str]]:
    """Return label, metrics and sign format of each pair of columns: the runs, and their difference."""
    columns = [(label, findings.headline, "") for label, findings in report.findings.items()]
    return columns + ([("B minus A", report.difference, "+")] if report.difference else [])


def _headline_table(report: Report) -> Table:
    columns = _columns(report)
    header = ["", *(cell for label, _, _ in columns for cell in (label or "test", "95 % interval"))]
    single = report.runs.get("")
    same = baseline(single) if single else {}
    rows = []
    for name, (title, form) in SHOWN.items():
        row = [title, *(cell for _, found, sign in columns for cell in _with_interval(found[name], form, sign))]
        rows.append(row + ([_number(same[name], form) if name in same else ""] if same else []))
    own = single and single.results.get("baseline/from")  # of a test without training images
    title = "the best single answer" if own else "always the same answer"
    return Table([*header, title] if same else header, rows)


def _headline(report: Report) -> Section:
    text = (
        f"Intervals come from {report.settings['resamples']:,} bootstrap resamples of the test images. They "
        "show the variation between samples of test images, not between trainings. "
    )
    if all(run.answers.duplicates_known for run in report.runs.values()):
        text += "Copies of one photograph are drawn together. "
    else:
        text += "Copies of one photograph are unknown (not in index.csv): each file is drawn by itself. "
    if report.difference:
        text += "The difference is paired: both runs are evaluated on the same resamples. "
    text += "CS@5 is the fraction of ages within 5 years of the truth. A gender is answered if the probability of the "
    text += "likelier one is at least the run's min_confidence, chosen on validation faces; gender accuracy counts all "
    text += "faces."
    return Section("Metrics", text, tables=[_headline_table(report)])


def _curves(report: Report) -> Section:
    curves = {label: run.curves for label, run in report.runs.items()}
    without = [label for label, run in report.runs.items() if not curve_names([run.curves])]
    lines = [_no_curves(report.runs[label], label) for label in without]
    if len(without) < len(curves):
        best = {label: run.results.get("best_epoch") for label, run in report.runs.items()}
        lines.append("Training metrics are means over the epoch, during which the weights still change.")
        if any(best.values()):
            lines.append("The dotted line marks the epoch selected by validation.")
        if len(curves) > 1:
            lines.append("Dashed: training; solid: validation.")
        return Section("Curves", " ".join(lines), plots=draw.curve_plots(curves, best, _CURVES))
    return Section("Curves", " ".join(lines))


def _no_curves(run: Run, label: str) -> str:
    if run.results.get("epochs") == 0:
        return f"{run_name(label)} was not trained (fit=false), so it has no curves."
    return f"{run_name(label)} has no curves: no logger wrote them, or their files were removed."


def _knowing(report: Report, label: str) -> dict[str, RunMetrics]:
    """Return the runs with at least one test image that has this label: `ages` or `genders`."""
    return {run: findings for run, findings in report.findings.items() if getattr(findings, label)}


def _unknown(report: Report, label: str) -> str:
    """Return a sentence about the runs without any test image that has this label; empty if there are none."""
    without = [run_name(run) for run in report.findings if run not in _knowing(report, f"{label}s")]
    return f"{' and '.join(without)} was tested on images without any {label}." if without else ""


def _ages(report: Report) -> Section:
    known = _knowing(report, "ages")
    plots = [draw.age_plot(report.runs[run].answers, found.slices["age"], run) for run, found in known.items()]
    plots += [draw.cumulative_score_plot(known)] if known else []
    return Section("Ages", _unknown(report, "age"), plots=plots)


def _slices(report: Report, kind: str) -> Section:
    partly = any(min(found.ages, found.genders) < found.images for found in report.findings.values())
    header = [SUBGROUP_TITLES[kind], "images", *(["with an age", "with a gender"] if partly else []), "age MAE, years"]
    header += ["95 % interval", "bias, years", "CS@5, %", "gender accuracy, %", "95 % interval"]
    tables, few = [], []
    for label, findings in report.findings.items():
        rows = []
        for part in findings.slices[kind]:
            counts = [part.images, *([part.ages, part.genders] if partly else [])]
            age, gender = _with_interval(part.age_mae, _YEARS), _with_interval(part.gender_acc, _PERCENT)
            others = (_number(part.age_bias, _YEARS, "+"), _number(part.age_cs5, _PERCENT))
            rows.append((part.name, *(f"{count:,}" for count in counts), *age, *others, *gender))
            few += [part.name] if part.images < SMALL_SAMPLE and part.name not in few else []
        tables.append(Table(header, rows, label))
    text = "Bias is the mean of predicted minus true age." if kind == "age" else ""
    if partly:
        text += " Age metrics are computed from the images with an age, gender metrics from those with a gender."
    if few:
        text += f" Fewer than {SMALL_SAMPLE} images in {', '.join(few)}: these intervals are unreliable."
    return Section(f"By {SUBGROUP_TITLES[kind]}", text.strip(), tables, draw.slice_plots(report.findings, kind))


def _gender(report: Report) -> Section:
    known = _knowing(report, "genders")
    missing = [run_name(label) for label, findings in known.items() if findings.roc is None]
    plots = [draw.roc_plot(report.findings)] if len(missing) < len(known) else []
    plots += [draw.confusion_plot(found, label) for label, found in known.items()]
    text = f"{' and '.join(missing)} has only one gender among its test images: no ROC, no AUROC." if missing else ""
    return Section("Gender", f"{text} {_unknown(report, 'gender')}".strip(), plots=plots)


def _calibration(report: Report) -> Section:
    tables = []
    for label, findings in report.findings.items():
        bins = findings.reliability
        rows = [
            (f"{low:.1f} to {low + 1 / BINS:.1f}", f"{images:,}", _number(mean, (1, 3)), _number(female, (1, 3)))
            for low, images, mean, female in zip(bins.low, bins.images, bins.p_female, bins.female, strict=True)
        ]
        tables.append(Table(("p_female", "images", "mean p_female", "fraction of female faces"), rows, label))
    text = (
        f"The expected calibration error (ECE) is the mean distance from the diagonal over {BINS} bins of equal "
        "width, weighted by their images. Sampling noise biases it upward, and resampling adds to that: the interval "
        "lies slightly too high, the more so the fewer images there are."
    )
    known = _knowing(report, "genders")
    return Section("Calibration of p_female", text, tables, [draw.reliability_plot(known)] if known else [])


def _spread(report: Report) -> Section:
    lines: list[str] = []
    tables: list[Table] = []
    for label, findings in report.findings.items():
        spread, coverage = findings.spread, findings.coverage
        if spread is None or coverage is None:
            reason = "predicts no age intervals" if findings.ages else "was tested on images without any age"
            lines.append(f"{run_name(label)} {reason}.")
            continue
        inside, interval = _with_interval(coverage, _PERCENT)
        lines.append(f"{run_name(label)}: {inside} % of the true ages lie inside the 80 % intervals ({interval}).")
        if spread.images < findings.ages:
            lines.append(f"Only {spread.images:,} of {findings.ages:,} images have a predicted standard deviation.")
        rows = [(f"{100 * a:.0f} %", f"{100 * b:.1f} %") for a, b in zip(spread.nominal, spread.observed, strict=True)]
        caption = f"Intervals of a normal distribution with the predicted standard deviation {label}".strip()
        tables.append(Table(("nominal", "inside"), rows, caption))
        bins = zip(spread.bin_images, spread.bin_std, spread.bin_rmse, strict=True)
        cells = [(f"{std:.2f}", f"{rmse:.2f}", f"{images:,}") for images, std, rmse in bins]
        if len(cells) > 1:
            header = ("predicted, years", "RMSE, years", "images")
            tables.append(Table(header, cells, f"Error by predicted standard deviation {label}".strip()))
        else:
            line = "The predicted standard deviation is constant: {} years, at an RMSE of {}."
            lines.append(line.format(*cells[0]))
        parts = [(part.name, *_with_interval(part.coverage, _PERCENT)) for part in findings.slices["age"] if part.ages]
        tables.append(
            Table((SUBGROUP_TITLES["age"], "inside, %", "95 % interval"), parts, f"The 80 % intervals {label}".strip())
        )
    plots = [draw.coverage_plot(report.findings)] if tables else []
    if any(findings.spread and len(findings.spread.bin_std) > 1 for findings in report.findings.values()):
        plots.append(draw.spread_plot(report.findings))
    return Section("Calibration of the age intervals", " ".join(lines), tables, plots)
