"""Whole runs of train.py on drawn faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import TINY, Outcome, metrics_of


def test_a_run_leaves_exactly_the_files_that_the_design_lists(trained_run: Path) -> None:
    files = {str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert events
    assert files - events == {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "index.csv",
        "metrics.json",
        "predictions.csv",
        "quarantine.csv",
    }


def test_the_same_command_gives_the_same_figures_to_the_last_digit(
    run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path
) -> None:
    again = run_here("train.py", *TINY, "hydra.run.dir=again")
    assert again.code == 0, again.err
    first, second = metrics_of(trained_run), metrics_of(tmp_path / "again")
    timings = {"seconds_per_epoch", "images_per_second", "train_seconds"}
    assert {key: first[key] for key in first if key not in timings} == {
        key: second[key] for key in second if key not in timings
    }
