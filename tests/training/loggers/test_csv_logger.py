"""The CSV logger survives a kill and continues on resume: no row is lost or repeated."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome
from helpers.stopped_runs import CrashError, crash, stop_at

from agegender.training.loggers.csv_logger import ResumableCSVLogger

Run = Callable[..., Outcome]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return [dict(sorted(row.items())) for row in csv.DictReader(file)]


def test_csv_logger_of_a_resumed_run_equals_that_of_an_uninterrupted_one(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("train.py", *TINY, "logger=csv", "test=false", "callbacks.image_logger=null")
    assert run_here(*asked, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 3, crash)  # rows after the checkpoint are logged again
        with pytest.raises(CrashError):
            run_here(*asked, "hydra.run.dir=run")
    assert run_here("train.py", "resume=run").code == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_csv_logger_writes_each_row_at_once(tmp_path: Path) -> None:
    table = ResumableCSVLogger(str(tmp_path))
    table.log_metrics({"loss": 1.5}, 3)
    assert rows(tmp_path)[0]["loss"] == "1.5"


def test_csv_logger_drops_a_torn_row_and_keeps_rows_with_a_new_column(tmp_path: Path) -> None:
    table = ResumableCSVLogger(str(tmp_path))
    table.log_metrics({"loss": 1.5}, 3)
    with (tmp_path / "csv/metrics.csv").open("a") as file:
        file.write("1.")
    again = ResumableCSVLogger(str(tmp_path))
    again.log_metrics({"mae": 7.0}, 4)
    assert rows(tmp_path) == [{"loss": "1.5", "mae": "", "step": "3"}, {"loss": "", "mae": "7.0", "step": "4"}]
