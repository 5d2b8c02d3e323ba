"""The curves of a training, from the CSV logger's table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from conftest import TINY, Outcome
from helpers.made_runs import AGE, GENDER, HEIGHT, SMILE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agegender.evaluation.report.curves import Curves, curve_titles, read_curves
from agegender.tasks.info import TaskInfo


def test_run_without_logs_has_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}


def test_curves_equal_the_tensorboard_scalars(trained_run: Path) -> None:
    shown = EventAccumulator(str(trained_run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    curves = read_curves(trained_run)
    tags = {tag for tag in shown.Tags()["scalars"] if tag.startswith(("train/", "val/"))}
    tags -= {"train/loss_step", "train/lr-Adam"}  # not by epoch
    assert set(curves) == tags and {"train/age_mae", "val/gender_acc"} <= tags
    for tag in tags:
        assert list(curves[tag].values()) == [event.value for event in shown.Scalars(tag)]
        assert list(curves[tag]) == [1, 2]


def test_curves_equal_the_csv_loggers_values(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run_here("train.py", *TINY, "logger=csv", "test=false", "hydra.run.dir=run").code == 0
    curves = read_curves(tmp_path / "run")
    assert {"train/loss", "val/loss", "train/age_mae", "val/gender_acc"} <= set(curves)
    assert all(list(points) == [1, 2] for points in curves.values())
    with (tmp_path / "run/csv/metrics.csv").open(newline="", encoding="utf-8") as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert list(curves["val/loss"].values()) == logged


def write_table(folder: Path, text: str) -> None:
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text(text, encoding="utf-8")


def test_csv_logger_table_is_read_with_its_gaps(tmp_path: Path) -> None:
    write_table(
        tmp_path, "epoch,lr,step,train/loss,val/loss\n,0.1,0,,\n0,,5,,3.5\n0,,5,2.5,\n1,,11,,nonsense\n1,,11,1.5"
    )
    curves = read_curves(tmp_path)
    assert curves["train/loss"] == {1: 2.5, 2: 1.5}
    assert curves["val/loss"][1] == 3.5 and np.isnan(curves["val/loss"][2])


def test_curves_use_the_later_row_of_a_repeated_epoch(tmp_path: Path) -> None:
    write_table(tmp_path, "epoch,step,val/loss\n0,5,3.5\n1,11,3.0\n1,11,2.0\n")
    assert read_curves(tmp_path)["val/loss"] == {1: 3.5, 2: 2.0}


def titles_of(*names: str, tasks: Sequence[TaskInfo] = (AGE, GENDER)) -> dict[str, str]:
    both: Curves = {f"{stage}/{name}": {1: 0.0} for name in names for stage in ("train", "val")}
    return curve_titles([both, {"val/lonely": {1: 0.0}}], tasks)


def test_curve_needs_both_stages_and_unknown_metrics_come_last() -> None:
    names = ("zeal", "age_class_acc", "gender_acc", "loss", "age_cs5", "age_mae", "gender_loss", "age_loss")
    assert list(titles_of(*names).items()) == [
        ("loss", "loss"),
        ("age_loss", "age loss"),
        ("gender_loss", "gender loss"),
        ("age_mae", "age MAE, years"),
        ("age_cs5", "CS@5"),
        ("gender_acc", "gender accuracy"),
        ("age_class_acc", "age class accuracy"),
        ("zeal", "zeal"),
    ]
    assert curve_titles([{}, {}], [AGE]) == {}


def test_curve_titles_follow_the_tasks() -> None:
    titles = titles_of("smile_acc", "height_mae", "height_cs2.5", "height_mse", tasks=(HEIGHT, SMILE))
    assert list(titles.items()) == [
        ("height_mae", "height MAE, cm"),
        ("height_cs2.5", "CS@2.5"),
        ("smile_acc", "smile accuracy"),
        ("height_mse", "height MSE, cm squared"),
    ]
