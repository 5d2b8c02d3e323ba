"""The sections of a test report: its numbers in tables, plots and sentences."""

from __future__ import annotations

import math

from agegender.evaluation import report_plots as draw
from agegender.evaluation.bootstrap import Estimate
from agegender.evaluation.calibration import BINS
from agegender.evaluation.comparison import Report, baseline
from agegender.evaluation.curves import curve_names
from agegender.evaluation.findings import FEW, KINDS, PARTS, Findings
from agegender.evaluation.page import Page, Section, Table
from agegender.evaluation.report_faces import face_sections
from agegender.evaluation.report_facts import facts_of, notes_of, run_name
from agegender.evaluation.robustness_page import robustness_section
from agegender.evaluation.run_files import Run

# A measure's name for people, and the factor and the digits that it is shown with.
_YEARS, _PERCENT = (1, 2), (100, 1)
SHOWN: dict[str, tuple[str, tuple[int, int]]] = {
    "age_mae": ("age MAE, years", _YEARS),
    "age_cs5": ("CS@5, %", _PERCENT),
    "age_cs5_whole": ("CS@5 of the answers in whole years, %", _PERCENT),
    "gender_acc": ("gender accuracy, %", (100, 2)),
    "gender_acc_from_5": ("gender accuracy from 5 years of age on, %", (100, 2)),
    "gender_answered": ("genders answered, the others being unsure, %", _PERCENT),
    "gender_acc_answered": ("gender accuracy of the answered, %", (100, 2)),
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
        *(_slices(report, kind) for kind in PARTS if any(found.slices[kind] for found in report.findings.values())),
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
    # Adding zero takes the sign from a negative one.
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}" if math.isfinite(value) else NOTHING


def _with_interval(found: Estimate, form: tuple[int, int], sign: str = "") -> tuple[str, str]:
    low, high = _number(found.low, form, sign), _number(found.high, form, sign)
    return _number(found.value, form, sign), NOTHING if NOTHING in (low, high) else f"{low} to {high}"


def headline_lines(report: Report) -> list[str]:
    """Return the headline figures for a terminal, a line each."""
    lines = []
    for name, (title, form) in SHOWN.items():
        found = [(label, *_with_interval(column[name], form, sign)) for label, column, sign in _columns(report)]
        lines.append(f"{title}: " + ", ".join(f"{label} {value} ({ends})".strip() for label, value, ends in found))
    return lines


def _columns(report: Report) -> list[tuple[str, dict[str, Estimate], str]]:
    """Return name, figures and sign format of each pair of columns: the runs, and their difference."""
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
        f"Intervals come from {report.settings['resamples']:,} bootstrap resamples of the test images. They say how "
        "far another draw of test images would move a figure, not what another training would. "
    )
    if all(run.answers.clustered for run in report.runs.values()):
        text += "Copies of one photograph are drawn together. "
    else:
        text += "Which files are copies of one photograph is not known here (index.csv): each file is drawn by itself. "
    if report.difference:
        text += "The difference is paired: both runs answer the same drawn images. "
    text += "CS@5 is the share of ages within 5 years of the truth. A gender is answered where the likelier one is at "
    text += "least as probable as the run's min_confidence, which validation chose; gender accuracy counts all faces."
    return Section("Figures", text, tables=[_headline_table(report)])


def _curves(report: Report) -> Section:
    curves = {label: run.curves for label, run in report.runs.items()}
    without = [label for label, run in report.runs.items() if not curve_names([run.curves])]
    lines = [_no_curves(report.runs[label], label) for label in without]
    if len(without) < len(curves):
        best = {label: run.results.get("best_epoch") for label, run in report.runs.items()}
        lines.append("Figures of training are means over the epoch, in which the weights still move.")
        if any(best.values()):
            lines.append("The dotted line is the epoch that validation chose.")
        if len(curves) > 1:
            lines.append("Dashed: training; solid: validation.")
        return Section("Curves", " ".join(lines), plots=draw.curve_plots(curves, best, _CURVES))
    return Section("Curves", " ".join(lines))


def _no_curves(run: Run, label: str) -> str:
    if run.results.get("epochs") == 0:
        return f"{run_name(label)} trained nothing (fit=false), so it has no curves."
    return f"{run_name(label)} left no curves: no logger wrote them, or they were removed."


def _knowing(report: Report, label: str) -> dict[str, Findings]:
    """Return the runs in which some test image has this label: `ages` or `genders`."""
    return {run: findings for run, findings in report.findings.items() if getattr(findings, label)}


def _unknown(report: Report, label: str) -> str:
    """Say for which runs no test image has this label."""
    without = [run_name(run) for run in report.findings if run not in _knowing(report, f"{label}s")]
    return f"{' and '.join(without)} was tested on images without any {label}." if without else ""


def _ages(report: Report) -> Section:
    known = _knowing(report, "ages")
    plots = [draw.age_plot(report.runs[run].answers, found.slices["age"], run) for run, found in known.items()]
    plots += [draw.cumulative_score_plot(known)] if known else []
    return Section("Ages", _unknown(report, "age"), plots=plots)


def _slices(report: Report, kind: str) -> Section:
    partly = any(min(found.ages, found.genders) < found.images for found in report.findings.values())
    header = [KINDS[kind], "images", *(["with an age", "with a gender"] if partly else []), "age MAE, years"]
    header += ["95 % interval", "bias, years", "CS@5, %", "gender accuracy, %", "95 % interval"]
    tables, few = [], []
    for label, findings in report.findings.items():
        rows = []
        for part in findings.slices[kind]:
            counts = [part.images, *([part.ages, part.genders] if partly else [])]
            age, gender = _with_interval(part.age_mae, _YEARS), _with_interval(part.gender_acc, _PERCENT)
            others = (_number(part.age_bias, _YEARS, "+"), _number(part.age_cs5, _PERCENT))
            rows.append((part.name, *(f"{count:,}" for count in counts), *age, *others, *gender))
            few += [part.name] if part.images < FEW and part.name not in few else []
        tables.append(Table(header, rows, label))
    text = "Bias is the mean of predicted minus true age." if kind == "age" else ""
    if partly:
        text += " An age's figures are counted from the images with an age, gender's from those with a gender."
    if few:
        text += f" Fewer than {FEW} images in {', '.join(few)}: the intervals there are rough."
    return Section(f"By {KINDS[kind]}", text.strip(), tables, draw.slice_plots(report.findings, kind))


def _gender(report: Report) -> Section:
    known = _knowing(report, "genders")
    missing = [run_name(label) for label, findings in known.items() if findings.roc is None]
    plots = [draw.roc_plot(report.findings)] if len(missing) < len(known) else []
    plots += [draw.confusion_plot(found, label) for label, found in known.items()]
    text = f"{' and '.join(missing)} saw only one gender among the test images: no ROC, no AUROC." if missing else ""
    return Section("Gender", f"{text} {_unknown(report, 'gender')}".strip(), plots=plots)


def _calibration(report: Report) -> Section:
    tables = []
    for label, findings in report.findings.items():
        bins = findings.reliability
        rows = [
            (f"{low:.1f} to {low + 1 / BINS:.1f}", f"{images:,}", _number(mean, (1, 3)), _number(share, (1, 3)))
            for low, images, mean, share in zip(bins.low, bins.images, bins.p_female, bins.female, strict=True)
        ]
        tables.append(Table(("p_female", "images", "mean p_female", "share of female faces"), rows, label))
    text = (
        f"The expected calibration error (ECE) is the mean distance from the diagonal over {BINS} bins of equal "
        "width, weighted by their images. Chance alone keeps it above zero, and resampling adds to that: its interval "
        "lies a little high, the more so the fewer images there are."
    )
    known = _knowing(report, "genders")
    return Section("Calibration of p_female", text, tables, [draw.reliability_plot(known)] if known else [])


def _spread(report: Report) -> Section:
    lines: list[str] = []
    tables: list[Table] = []
    for label, findings in report.findings.items():
        spread, coverage = findings.spread, findings.coverage
        if spread is None or coverage is None:
            reason = "states no spread of its ages" if findings.ages else "was tested on images without any age"
            lines.append(f"{run_name(label)} {reason}.")
            continue
        share, interval = _with_interval(coverage, _PERCENT)
        lines.append(f"{run_name(label)}: the 80 % intervals hold {share} % of the true ages ({interval}).")
        if spread.images < findings.ages:
            lines.append(f"Only {spread.images:,} of {findings.ages:,} images count: the others have no spread.")
        rows = [(f"{100 * a:.0f} %", f"{100 * b:.1f} %") for a, b in zip(spread.nominal, spread.observed, strict=True)]
        tables.append(Table(("promised", "inside"), rows, f"Of a normal distribution with that spread {label}".strip()))
        bins = zip(spread.bin_images, spread.bin_std, spread.bin_rmse, strict=True)
        cells = [(f"{std:.2f}", f"{rmse:.2f}", f"{images:,}") for images, std, rmse in bins]
        if len(cells) > 1:
            header = ("stated, years", "RMSE, years", "images")
            tables.append(Table(header, cells, f"Error by stated spread {label}".strip()))
        else:
            lines.append("The spread is the same for every image: {} years, where the RMSE is {}.".format(*cells[0]))
        parts = [(part.name, *_with_interval(part.coverage, _PERCENT)) for part in findings.slices["age"] if part.ages]
        tables.append(Table((KINDS["age"], "inside, %", "95 % interval"), parts, f"The 80 % intervals {label}".strip()))
    plots = [draw.coverage_plot(report.findings)] if tables else []
    if any(findings.spread and len(findings.spread.bin_std) > 1 for findings in report.findings.values()):
        plots.append(draw.spread_plot(report.findings))
    return Section("Calibration of the age spread", " ".join(lines), tables, plots)
