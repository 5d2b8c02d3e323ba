"""Report plots: each opens, shows its data, and no predictions are too odd to be drawn."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.made_runs import Made, make_run
from numpy.typing import NDArray
from PIL import Image

from agegender.evaluation.html.page import Plot
from agegender.evaluation.report import plots as draw
from agegender.evaluation.report.analysis import SUBGROUPS, RunMetrics, analyze
from agegender.evaluation.report.run_reader import RunPredictions, read_answers

BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xE8, 0x59, 0x0C)


def pixels(plot: Plot) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(plot.png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def count(plot: Plot, color: tuple[int, int, int]) -> int:
    return int((pixels(plot) == color).all(-1).sum())


def run_of(folder: Path, *made: Made) -> tuple[RunPredictions, RunMetrics]:
    answers = read_answers(make_run(folder, made))
    return answers, analyze(answers, resamples=50, faces=2, seed=0)


def usual(step: int) -> list[Made]:
    return [
        Made(f"{i}.jpg", 4 * i, 4 * i + step, i % 2, 0.3 + 0.4 * (i % 2) + i % 5 / 50, i % 5, f"{2 + i % 4}")
        for i in range(20)
    ]


def all_plots(runs: dict[str, tuple[RunPredictions, RunMetrics]]) -> list[Plot]:
    findings = {label: found for label, (_, found) in runs.items()}
    plots = [draw.age_plot(answers, found.slices["age"], label) for label, (answers, found) in runs.items()]
    plots += [draw.confusion_plot(found, label) for label, found in findings.items()]
    plots += [plot for kind in SUBGROUPS for plot in draw.slice_plots(findings, kind)]
    return [
        *(*plots, draw.cumulative_score_plot(findings), draw.roc_plot(findings), draw.reliability_plot(findings)),
        *(draw.coverage_plot(findings), draw.spread_plot(findings)),
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
    single = all_plots({"": both["A"]})
    assert {name.removesuffix("_a").removesuffix("_b") for name in names} == {plot.name for plot in single}


def test_plots_keep_a_runs_color_without_the_other(tmp_path: Path) -> None:
    without = [Made(one.name, one.age, one.age_pred, 0, one.p_female) for one in usual(2)]
    runs = {"A": run_of(tmp_path / "a", *without)[1], "B": run_of(tmp_path / "b", *usual(6))[1]}
    for plot in (draw.roc_plot(runs), draw.coverage_plot(runs), draw.spread_plot(runs)):
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
    for plot in all_plots({"": run_of(tmp_path / "run", *made)}):
        assert len(np.unique(pixels(plot).astype(int) @ (65536, 256, 1))) > 5, plot.name


def test_plots_clip_outliers_to_the_edge_and_count_them(tmp_path: Path) -> None:
    near, far = usual(1), [*usual(1), Made("far.jpg", 30, 1e6), Made("below.jpg", 30, -1e6)]
    plain, marked = (
        draw.age_plot(answers, found.slices["age"])
        for answers, found in (run_of(tmp_path / "a", *near), run_of(tmp_path / "b", *far))
    )
    assert "2 outside the plot" in marked.caption and "outside" not in plain.caption
    heights = [int((pixels(plot) == ORANGE).all(-1).any(1).sum()) for plot in (marked, plain)]
    assert heights[0] > 0.5 * heights[1] > 50  # the line of the bands' means still rises


def test_confusion_plot_darkens_with_the_fraction(tmp_path: Path) -> None:
    right = [Made(f"{i}.jpg", gender=i % 2, p_female=i % 2) for i in range(4)]
    good, bad = (
        pixels(draw.confusion_plot(run_of(tmp_path / name, *made)[1]))
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
    plots = draw.curve_plots({"": logged}, {"": None}, {"age_mae": "age MAE, years"})
    assert [plot.name for plot in plots] == ["curve_loss", "curve_age_mae", "curve_age_class_acc", "curve_new_thing"]
    assert plots[1].caption == "age MAE, years, by epoch" and plots[2].caption == "age_class_acc, by epoch"
    assert all(count(plot, BLUE) > 50 and count(plot, ORANGE) > 50 for plot in plots)


def test_curve_plots_mark_the_best_epoch_if_known() -> None:
    (without,), (second,), (third,) = (draw.curve_plots({"": curves("loss")}, {"": best}, {}) for best in (None, 2, 3))
    places = [np.flatnonzero((pixels(plot) != pixels(without)).any((0, 2))) for plot in (second, third)]
    assert all(0 < np.ptp(place) < 5 for place in places)  # one thin line
    assert places[1].mean() > places[0].mean() + 50


def test_curve_plots_show_a_single_epoch_as_a_dot_and_nan_as_a_gap() -> None:
    (dot,) = draw.curve_plots({"": curves("loss", epochs=1)}, {"": 1}, {})
    assert count(dot, BLUE) > 20 and count(dot, ORANGE) > 20
    gap = {"train/loss": {1: 1.0, 2: float("nan"), 3: float("inf")}, "val/loss": {1: 2.0, 2: 1.0}}
    (plot,) = draw.curve_plots({"": gap}, {"": None}, {})
    assert count(plot, ORANGE) > 50


def test_curve_plots_show_a_curve_that_only_one_run_has() -> None:
    (plot,) = draw.curve_plots({"A": {}, "B": curves("loss")}, {"A": None, "B": 2}, {})
    assert count(plot, ORANGE) > 50 and count(plot, BLUE) == 0
