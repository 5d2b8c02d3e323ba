"""Report plots: each opens, shows its data, and no predictions are too odd to be drawn."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from helpers.blank_plots import blank_plots
from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, SMILE, Made, make_run
from numpy.typing import NDArray
from PIL import Image

from agegender.evaluation.html.page import Plot
from agegender.evaluation.report import plots as draw
from agegender.evaluation.report.analysis import RunMetrics, analyze
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import read_run
from agegender.evaluation.report.task_metrics import ClassMetrics, NumberMetrics, TaskMetrics
from agegender.tasks.info import TaskInfo

BLUE, ORANGE, GRAY = (0x1F, 0x77, 0xB4), (0xE8, 0x59, 0x0C), (0x86, 0x8E, 0x96)


def pixels(plot: Plot) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(plot.png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def count(plot: Plot, color: tuple[int, int, int]) -> int:
    return int((pixels(plot) == color).all(-1).sum())


Found = tuple[RunPredictions, RunMetrics]


def run_of(folder: Path, *made: Made, tasks: Sequence[TaskInfo] = (AGE, GENDER)) -> Found:
    found = read_run(make_run(folder, made, {"test/height_cs2": None}, tasks=tasks)).predictions
    return found, analyze(found, resamples=50, faces=2, seed=0)


Kind = TypeVar("Kind", bound=TaskMetrics)


def of_kind(runs: dict[str, Found], name: str, kind: type[Kind]) -> dict[str, Kind]:
    """Metrics of one task by run, as the page gives them to the plots."""
    tasks = {label: findings.tasks[name] for label, (_, findings) in runs.items()}
    return {label: task for label, task in tasks.items() if isinstance(task, kind) and task.images}


def usual(step: int) -> list[Made]:
    return [
        Made(f"{i}.jpg", 4 * i, 4 * i + step, i % 2, 0.3 + 0.4 * (i % 2) + i % 5 / 50, i % 5, f"{2 + i % 4}")
        for i in range(20)
    ]


def all_plots(runs: dict[str, Found], labels: Sequence[str] | None = None) -> list[Plot]:
    """Returns every plot of a report; those by label of `labels`, by default of all."""
    plots: list[Plot] = []
    first = next(iter(runs.values()))[0]
    for task in first.tasks:
        if numbers := of_kind(runs, task.name, NumberMetrics):
            plots += [draw.scatter_plot(run, task, label) for label, (run, _) in runs.items()]
            plots += [draw.coverage_plot(numbers), draw.spread_plot(numbers)]
            plots += [draw.cumulative_score_plot(numbers)] if task.name in first.tolerances else []
        if classes := of_kind(runs, task.name, ClassMetrics):
            plots += [draw.confusion_plot(found, label) for label, found in classes.items()]
            plots += [draw.reliability_plot(classes), *([draw.roc_plot(classes)] if task.kind == "binary" else [])]
    findings = {label: found for label, (_, found) in runs.items()}
    return plots + [
        plot
        for label in (labels or next(iter(findings.values())).slices)
        for plot in draw.slice_plots(findings, first.tasks, label)
    ]


def test_plots_of_two_runs_show_both_runs(tmp_path: Path) -> None:
    both = {"A": run_of(tmp_path / "a", *usual(2)), "B": run_of(tmp_path / "b", *usual(6))}
    plots = all_plots(both)
    names = [plot.name for plot in plots]
    assert len(set(names)) == len(names)
    for plot in plots:
        if plot.name.endswith("_a"):
            assert f"{plot.name[:-1]}b" in names and plot.caption.startswith("A: ")
        elif not plot.name.endswith("_b"):
            assert count(plot, BLUE) > 5 and count(plot, ORANGE) > 5, plot.name
    with blank_plots():
        single = all_plots({"": both["A"]})
    assert {name.removesuffix("_a").removesuffix("_b") for name in names} == {plot.name for plot in single}


def test_plots_keep_a_runs_color_without_the_other(tmp_path: Path) -> None:
    without = [Made(one.name, one.age, one.age_pred, 0, one.p_female) for one in usual(2)]
    runs = {"A": run_of(tmp_path / "a", *without), "B": run_of(tmp_path / "b", *usual(6))}
    age, gender = of_kind(runs, "age", NumberMetrics), of_kind(runs, "gender", ClassMetrics)
    for plot in (draw.roc_plot(gender), draw.coverage_plot(age), draw.spread_plot(age)):
        assert count(plot, ORANGE) > 5 and count(plot, BLUE) == 0, plot.name


@pytest.mark.parametrize(
    "made",
    [
        [Made("one.jpg")],
        [Made("a.jpg", age_std="0"), Made("b.jpg", age_std="0")],
        [Made(f"{i}.jpg", gender=i % 2, p_female=0.5, age_std="9") for i in range(4)],
        [Made("a.jpg", age_pred=1e9, age_std="1e8"), Made("b.jpg", age_pred=-1e9)],
        [Made(f"{i}.jpg", age=i * 100, gender=1, p_female=i) for i in range(2)],
    ],
    ids=["one image", "all the same", "constant", "far out", "one gender"],
)
def test_plots_of_odd_predictions_give_no_warning(tmp_path: Path, made: list[Made]) -> None:
    for plot in all_plots({"": run_of(tmp_path / "run", *made)}, labels=["gender"]):
        assert len(np.unique(pixels(plot).astype(int) @ (65536, 256, 1))) > 5, plot.name


def test_plots_of_further_tasks_show_their_data(tmp_path: Path) -> None:
    made = []
    for i in range(20):
        more: dict[str, float | str] = {"height": 150 + 2 * i, "height_pred": 152 + 2 * i, "height_std": 2 + i % 4}
        more |= {"smile": i % 2, "p_smile": 0.3 + 0.4 * (i % 2), **dict.fromkeys(ETHNICITY.columns, 0.2)}
        made.append(Made(f"{i}.jpg", 4 * i, group=i % 5, more=more))
    plots = all_plots({"": run_of(tmp_path / "run", *made, tasks=(HEIGHT, SMILE, ETHNICITY))})
    names = [plot.name for plot in plots]
    assert len(set(names)) == len(names) and {"height_true_vs_predicted", "height_cumulative_score"} <= set(names)
    by_name = {plot.name: plot for plot in plots}
    several, two = (pixels(by_name.pop(f"{name}_confusion")).shape for name in ("ethnicity", "smile"))
    assert several[0] > two[0] and several[1] > two[1]
    scatter = by_name.pop("height_true_vs_predicted")
    assert count(scatter, ORANGE) > 50 and "outside" not in scatter.caption
    for name, plot in by_name.items():
        assert count(plot, BLUE) > 5, name


def test_plots_clip_outliers_to_the_edge_and_count_them(tmp_path: Path) -> None:
    near, far = usual(1), [*usual(1), Made("far.jpg", 30, 1e6), Made("below.jpg", 30, -1e6)]
    plain, marked = (
        draw.scatter_plot(run_of(tmp_path / name, *made)[0], AGE) for name, made in (("a", near), ("b", far))
    )
    assert "2 outside the plot" in marked.caption and "outside" not in plain.caption
    heights = [int((pixels(plot) == ORANGE).all(-1).any(1).sum()) for plot in (marked, plain)]
    assert heights[0] > 0.5 * heights[1] > 50  # the line of the bands' means still rises


def test_confusion_plot_darkens_with_the_fraction(tmp_path: Path) -> None:
    right = [Made(f"{i}.jpg", gender=i % 2, p_female=i % 2) for i in range(4)]
    good, bad = (
        pixels(draw.confusion_plot(of_kind({"": run_of(tmp_path / name, *made)}, "gender", ClassMetrics)[""]))
        for name, made in (("a", right), ("b", [Made(one.name, gender=one.gender, p_female=0.2) for one in right]))
    )
    middles = list(itertools.product((0.3, 0.7), (0.4, 0.85)))  # of the cells, row by row
    tones = [
        [int(picture[int(y * picture.shape[0]), int(x * picture.shape[1])].sum()) for y, x in middles]
        for picture in (good, bad)
    ]
    assert tones[0][0] == tones[0][3] < tones[0][1] == tones[0][2]  # the diagonal is dark
    assert tones[1][0] == tones[1][2] < tones[1][1] == tones[1][3]  # "male" is always said


# Curves


def curves(*names: str, epochs: int = 3) -> dict[str, dict[int, float]]:
    return {
        f"{stage}/{name}": {epoch: epoch * factor for epoch in range(1, epochs + 1)}
        for name in names
        for stage, factor in (("train", 1.0), ("val", 0.5))
    }


def test_curve_plots_show_every_logged_pair() -> None:
    logged = curves("loss", "age_mae", "age_class_acc", "new/thing")
    plots = draw.curve_plots({"": logged}, {"": None}, [AGE])
    assert [plot.name for plot in plots] == ["curve_loss", "curve_age_mae", "curve_age_class_acc", "curve_new_thing"]
    assert plots[1].caption == "age MAE, years, by epoch" and plots[3].caption == "new/thing, by epoch"
    assert all(count(plot, BLUE) > 50 and count(plot, ORANGE) > 50 for plot in plots)


def test_curve_plots_mark_the_best_epoch_if_known() -> None:
    (without,), (second,), (third,) = (draw.curve_plots({"": curves("loss")}, {"": best}, []) for best in (None, 2, 3))
    places = [np.flatnonzero((pixels(plot) != pixels(without)).any((0, 2))) for plot in (second, third)]
    assert all(0 < np.ptp(place) < 5 for place in places)  # one thin line
    assert places[1].mean() > places[0].mean() + 50


def test_curve_plots_show_a_single_epoch_as_a_dot_and_nan_as_a_gap() -> None:
    (dot,) = draw.curve_plots({"": curves("loss", epochs=1)}, {"": 1}, [])
    assert count(dot, BLUE) > 20 and count(dot, ORANGE) > 20
    gap = {"train/loss": {1: 1.0, 2: float("nan"), 3: float("inf")}, "val/loss": {1: 2.0, 2: 1.0}}
    (plot,) = draw.curve_plots({"": gap}, {"": None}, [])
    assert count(plot, ORANGE) > 50


def test_curve_plots_show_a_curve_that_only_one_run_has() -> None:
    (plot,) = draw.curve_plots({"A": {}, "B": curves("loss")}, {"A": None, "B": 2}, [])
    assert count(plot, ORANGE) > 50 and count(plot, BLUE) == 0


def test_curve_plot_has_a_line_at_the_label_noise_of_its_metric() -> None:
    curves = {"": {"train/age_mae": {1: 8.0, 2: 6.0}, "val/age_mae": {1: 9.0, 2: 7.0}}}
    (without,) = draw.curve_plots(curves, {}, [AGE])
    (other,) = draw.curve_plots(curves, {}, [AGE], {"gender_acc": 0.9})
    (bounded,) = draw.curve_plots(curves, {}, [AGE], {"age_mae": 2.0})
    assert without.png == other.png
    assert count(bounded, GRAY) > count(without, GRAY) + 50


def test_cumulative_score_plot_has_a_curve_of_label_noise(tmp_path: Path) -> None:
    runs = of_kind({"": run_of(tmp_path / "run", *usual(7))}, "age", NumberMetrics)
    without, with_noise = draw.cumulative_score_plot(runs), draw.cumulative_score_plot(runs, np.array([1.0, 3.0, 9.0]))
    assert count(with_noise, GRAY) > count(without, GRAY) + 20
