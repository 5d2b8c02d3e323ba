"""Presentation of a robustness evaluation: a table, two plots, a page, and a section of the test report.

Everything is made from the plain values of `robustness.json`, so that a report can show an earlier evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable

from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.evaluation.html.page import Page, Plot, Section, Table
from agegender.evaluation.html.plot_style import BLUE, GRAY, new_plot, to_png
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.robustness.results_file import CLEAN, MEAN, robustness_command
from agegender.evaluation.statistics.metrics import COVERAGE, GROWN

ABOUT = {
    "noise": "Gaussian noise, the same in all channels; the number is its standard deviation in gray levels of 255",
    "noise_rgb": "Gaussian noise, independent in each channel",
    "blur": "Gaussian blur, standard deviation 1.5 pixels",
    "sharpen": "unsharp mask: adds 1.5 times the detail that a Gaussian blur of 1 pixel removes",
    "resolution_40": "downscaled to 40 pixels a side and upscaled again",
    "jpeg": "JPEG compression at this quality",
    "gray": "converted to gray",
    "dark": "brightness times 0.6",
    "bright": "brightness times 1.4, clipped at white",
    "shift": "shifted by 6 pixels along both axes",
    "turn": "rotated by 10 degrees",
    "squeeze": "squeezed to an aspect ratio of 4:3, in width or in height",
}
HEADER = (
    "faces",
    "age MAE, years",
    "95 % interval",
    "more than clean",
    "95 % interval",
    "bias, years",
    "CS@5, %",
    "gender accuracy, %",
    "95 % interval",
    "more than clean",
    "95 % interval",
    f"gender, ages {GROWN}+, %",
    "80 % intervals hold, %",
    "95 % interval",
)
_NOTHING = "n/a"
_Figure = Mapping[str, float] | None


def table_rows(numbers: Mapping[str, Any]) -> list[list[str]]:
    """Return a row of text per condition, with the columns of `HEADER`; the mean over the corruptions comes last."""
    return [[_row_name(name), *_cells(found)] for name, found in numbers["conditions"].items()]


def _row_name(condition: str) -> str:
    return "mean of the changes" if condition == MEAN else condition


def _cells(found: Mapping[str, _Figure]) -> list[str]:
    return [
        *_with_interval(found["age_mae"], 1, 2),
        *_with_interval(found["age_mae_change"], 1, 2, "+"),
        _value(found["age_bias"], 1, 2, "+"),
        _value(found["age_cs5"], 100, 1),
        *_with_interval(found["gender_acc"], 100, 2),
        *_with_interval(found["gender_acc_change"], 100, 2, "+"),
        _value(found["gender_acc_from_5"], 100, 2),
        *_with_interval(found["coverage"], 100, 1),
    ]


def _number(value: float | None, factor: int, digits: int, sign: str = "") -> str:
    # Adding 0.0 turns -0.0 into 0.0.
    return _NOTHING if value is None else f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}"


def _value(found: _Figure, factor: int, digits: int, sign: str = "") -> str:
    return _NOTHING if found is None else _number(found["value"], factor, digits, sign)


def _with_interval(found: _Figure, factor: int, digits: int, sign: str = "") -> tuple[str, str]:
    if found is None:
        return "", ""  # the change of the clean faces themselves, or no face counts
    low, high = (_number(found[end], factor, digits, sign) for end in ("low", "high"))
    return _value(found, factor, digits, sign), f"{low} to {high}"


# The columns of `HEADER` that fit a terminal, under shorter names; of the intervals only that of the MAE's increase.
_ON_TERMINAL = {
    0: "faces",
    1: "MAE",
    3: "more",
    4: "95 % interval",
    5: "bias",
    6: "CS@5",
    7: "gender",
    9: "more",
    11: f"{GROWN}+",
    12: "held",
}


def print_table(numbers: Mapping[str, Any]) -> None:
    """Print the main columns with a legend."""
    title = f"{numbers['run']}: {numbers['images']:,} {_faces(numbers)} under harmless changes"
    table = TerminalTable(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column, name in _ON_TERMINAL.items():
        table.add_column(name, justify="left" if column == 0 else "right", no_wrap=True)
    for row in table_rows(numbers):
        table.add_row(*(row[column] for column in _ON_TERMINAL))
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    print("Ages in years; CS@5, gender accuracy (all faces, and ages 5 and older) and interval coverage (held) in %.")


def _faces(numbers: Mapping[str, Any]) -> str:
    return "validation faces" if numbers["split"] == "val" else "test faces"


def build_robustness_page(numbers: Mapping[str, Any]) -> Page:
    """Return the page of a robustness evaluation.

    Args:
        numbers: Contents of `robustness.json`.
    """
    facts = [
        ("run", numbers["run"]),
        ("checkpoint", numbers["checkpoint"]),
        ("data", numbers["data"]),
        ("split", numbers["split_fingerprint"]),
        (_faces(numbers), f"{numbers['images']:,}, of {numbers['photographs']:,} photographs"),
        ("predictions", "mean over a face and its mirror image" if numbers["tta"] == "flip" else "one pass per face"),
        ("made by", numbers["command"]),
    ]
    changes = Section(
        "The changes",
        "Common corruptions that leave age and gender equally visible to people, after Hendrycks and Dietterich, "
        "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019. Lengths are for "
        "images of 128 pixels a side. The noise and the direction of a face's change depend on its row in the index "
        "only.",
        tables=[Table(("change", "what it does"), list(ABOUT.items()))],
    )
    notes = list(numbers["warnings"])
    if numbers["data"] == SYNTHETIC_NOTE:
        notes.append("The faces are synthetic: nothing here applies to real people.")
    return Page(
        f"Robustness of {numbers['run']}",
        facts,
        [_figures(numbers), Section("Plots", plots=robustness_plots(numbers)), changes],
        notes,
    )


def _figures(numbers: Mapping[str, Any]) -> Section:
    text = (
        f"Intervals come from {numbers['resamples']:,} bootstrap resamples of the faces. Changes against the "
        "clean faces are paired: both are computed on the same resamples. "
    )
    if numbers["copies_known"]:
        text += "Copies of one photograph are drawn together. "
    text += (
        "Bias is the mean of predicted minus true age. CS@5 is the fraction of ages within 5 years of the truth. The "
        "predicted intervals should contain 80 % of the true ages."
    )
    if numbers["grayscale"]:
        text += " The network takes gray images: gray changes nothing, and noise_rgb is the same as noise."
    return Section("Metrics", text, tables=[Table(HEADER, table_rows(numbers))])


def robustness_plots(numbers: Mapping[str, Any]) -> list[Plot]:
    """Draw the increase of the MAE and the coverage by corruption, with intervals; missing metrics are left out."""
    plots = []
    changes = {name: found["age_mae_change"] for name, found in numbers["conditions"].items() if name != CLEAN}
    if any(changes.values()):
        caption = "Increase of the age MAE over the clean faces, with 95 % intervals"
        plots.append(_plot("mae_increase", caption, changes, "years more than clean", 0.0))
    coverage = {name: found["coverage"] for name, found in numbers["conditions"].items()}
    if any(coverage.values()):
        caption = f"Fraction of true ages inside the 80 % intervals, with 95 % intervals; the line is at {COVERAGE:.0%}"
        plots.append(_plot("coverage", caption, coverage, "fraction of true ages inside", COVERAGE))
    return plots


def _plot(name: str, caption: str, found: Mapping[str, _Figure], label: str, line: float) -> Plot:
    counted = {_row_name(each): value for each, value in found.items() if value is not None}
    figure, axes = new_plot(5.2, 1.0 + 0.24 * len(counted))
    positions: Sequence[int] = range(len(counted))
    low, value, high = ([each[end] for each in counted.values()] for end in ("low", "value", "high"))
    axes.axvline(line, color=GRAY, linewidth=1, linestyle="--")
    axes.hlines(positions, low, high, color=BLUE)
    axes.plot(value, positions, "o", color=BLUE, markersize=5)
    axes.set_yticks(positions, list(counted))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    return Plot(f"robustness_{name}", caption, to_png(figure))


def robustness_section(runs: Mapping[str, Run]) -> Section:
    """Return a report's section on robustness: the tables of evaluated runs, and the command for the others.

    Args:
        runs: By label.
    """
    lines, tables = [], []
    for label, run in runs.items():
        name, numbers = f"Run {label}" if label else "This run", run.robustness
        if numbers is None:
            command = robustness_command(str(run.folder))
            lines.append(f"{name} was not measured under harmless changes of its images; {command} measures it.")
            continue
        lines.append(
            f"{name}: {numbers['images']:,} test faces under harmless changes, measured by {numbers['command']}; its "
            "page describes the changes."
        )
        lines += numbers["warnings"]
        tables.append(Table(HEADER, table_rows(numbers), label))
    return Section("Robustness", " ".join(lines), tables)
