"""The curves of a training, from TensorBoard's event files and from the CSV logger's table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Outcome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from agegender.evaluation.curves import Curves, curve_names, read_curves

Points = dict[str, dict[int, float]]  # tag to value by step


def write_events(folder: Path, scalars: Points, start: float = 1e9, suffix: str = "") -> Path:
    """Writes one event file, as Lightning does: the epoch beside everything, a picture among the figures."""
    (folder / "tensorboard").mkdir(parents=True, exist_ok=True)
    before = set((folder / "tensorboard").iterdir())
    with SummaryWriter(str(folder / "tensorboard"), filename_suffix=suffix) as writer:
        steps = sorted({step for points in scalars.values() for step in points})
        for step in steps:
            for tag, points in scalars.items():
                if step in points:
                    writer.add_scalar(tag, points[step], step, walltime=start + step)
            noise = np.random.default_rng(step).integers(0, 255, (200, 200, 3), dtype=np.uint8)
            writer.add_image("val/faces", noise, step, dataformats="HWC")
    (path,) = set((folder / "tensorboard").iterdir()) - before
    return path


def epochs(first: int, last: int, offset: float = 0.0) -> Points:
    """Two stages of a loss, logged every ten steps; the epoch counts from 0."""
    steps = range(10 * first - 1, 10 * last, 10)
    return {
        "epoch": {step: step // 10 for step in steps},
        "train/loss": {step: step + offset for step in steps},
        "val/loss": {step: 2 * step + offset for step in steps},
    }


def test_figures_stand_at_their_epochs_counted_from_one(tmp_path: Path) -> None:
    write_events(tmp_path, epochs(1, 3))
    assert read_curves(tmp_path) == {
        "train/loss": {1: 9.0, 2: 19.0, 3: 29.0},
        "val/loss": {1: 18.0, 2: 38.0, 3: 58.0},
    }


def test_after_a_resume_the_later_writing_counts(tmp_path: Path) -> None:
    write_events(tmp_path, epochs(1, 3), suffix=".z")  # the first in time, the last by name
    write_events(tmp_path, epochs(2, 4, offset=0.5), start=2e9, suffix=".a")
    assert read_curves(tmp_path)["train/loss"] == {1: 9.0, 2: 19.5, 3: 29.5, 4: 39.5}


def test_a_file_cut_off_at_any_byte_gives_what_was_whole(tmp_path: Path) -> None:
    path = write_events(tmp_path, epochs(1, 2))
    content, whole = path.read_bytes(), read_curves(tmp_path)
    counts = []
    for end in (*range(0, 700, 7), len(content) - 1, len(content)):
        path.write_bytes(content[:end])
        curves = read_curves(tmp_path)
        assert all(points.items() <= whole[tag].items() for tag, points in curves.items())
        counts.append(sum(len(points) for points in curves.values()))
    assert counts == sorted(counts) and set(counts) == {0, 1, 2, 4}


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"no event file at all, but some text" * 9])
def test_damage_is_no_curve(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").write_bytes(content)
    assert read_curves(tmp_path) == {}


def test_a_run_without_logs_has_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path) == {}


def test_the_curves_of_a_real_run_are_what_tensorboard_shows(trained_run: Path) -> None:
    shown = EventAccumulator(str(trained_run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    curves = read_curves(trained_run)
    tags = {tag for tag in shown.Tags()["scalars"] if tag.startswith(("train/", "val/"))}
    assert set(curves) == tags and {"train/age_mae", "val/gender_acc"} <= tags
    for tag in tags:
        assert list(curves[tag].values()) == [event.value for event in shown.Scalars(tag)]
        assert list(curves[tag]) == [1, 2]


def test_a_run_with_the_csv_logger_has_the_curves_that_it_logged(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert run_here("train.py", *TINY, "logger=csv", "hydra.run.dir=run").code == 0
    curves = read_curves(tmp_path / "run")
    assert {"train/loss", "val/loss", "train/age_mae", "val/gender_acc"} <= set(curves)
    assert all(list(points) == [1, 2] for points in curves.values())
    with (tmp_path / "run/csv/metrics.csv").open(newline="", encoding="utf-8") as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert list(curves["val/loss"].values()) == logged


def write_table(folder: Path, text: str) -> None:
    (folder / "csv").mkdir()
    (folder / "csv" / "metrics.csv").write_text(text, encoding="utf-8")


def test_the_csv_loggers_table_is_read_with_its_gaps(tmp_path: Path) -> None:
    write_table(
        tmp_path, "epoch,lr,step,train/loss,val/loss\n,0.1,0,,\n0,,5,,3.5\n0,,5,2.5,\n1,,11,,nonsense\n1,,11,1.5"
    )
    curves = read_curves(tmp_path)
    assert curves["train/loss"] == {1: 2.5, 2: 1.5}
    assert curves["val/loss"][1] == 3.5 and np.isnan(curves["val/loss"][2])


def test_a_table_in_which_an_epoch_occurs_twice_counts_the_later_row(tmp_path: Path) -> None:
    write_table(tmp_path, "epoch,step,val/loss\n0,5,3.5\n1,11,3.0\n1,11,2.0\n")
    assert read_curves(tmp_path)["val/loss"] == {1: 3.5, 2: 2.0}


def test_two_loggers_make_one_curve(tmp_path: Path) -> None:
    write_table(tmp_path, "epoch,step,train/loss,val/loss\n0,9,9.0,18.0\n")
    write_events(tmp_path, epochs(2, 3))
    assert read_curves(tmp_path)["train/loss"] == {1: 9.0, 2: 19.0, 3: 29.0}


def test_a_curve_needs_both_stages_and_new_ones_follow_the_usual() -> None:
    tags = ["zeal", "age_class_acc", "gender_acc", "loss", "age_mae"]
    both: Curves = {f"{stage}/{name}": {1: 0.0} for name in tags for stage in ("train", "val")}
    assert curve_names([both, {"val/lonely": {1: 0.0}}]) == ["loss", "age_mae", "gender_acc", "age_class_acc", "zeal"]
    assert curve_names([{}, {}]) == []
