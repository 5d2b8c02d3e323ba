"""The end of a sweep over a setting and seeds: one row for each value, ranked by its mean, and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of
from PIL import Image

from agegender.sweeps.results import finish_sweep

SCORES = {1000: (6.0, 8.0), 500: (9.0, 9.5), 4000: (5.0, 5.5)}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished sweep over data.train_limit and seed, made by hand."""
    folder = tmp_path / "sweep"
    varied = ["data.train_limit", "seed"]
    jobs = [(limit, seed, score) for limit, scores in SCORES.items() for seed, score in enumerate(scores)]
    for number, (limit, seed, score) in enumerate(jobs):
        (folder / str(number)).mkdir(parents=True)
        overrides = [f"data.train_limit={limit}", f"seed={seed}", "name=a"]
        record = {"sweep": "id", "job": number, "overrides": overrides, "score": score, "error": None, "seconds": 1.0}
        (folder / str(number) / "job.json").write_text(json.dumps(record))
        (folder / str(number) / "metrics.json").write_text(json.dumps({"val/age_mae": score}))
    (folder / "sweep.json").write_text(json.dumps({"sweep": "id", "varied": varied, "finished": False}))
    return folder


def test_results_rank_settings_by_their_mean_over_the_seeds(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = finish_sweep(sweep, "val/age_mae", "min", with_report=False)
    assert [job["score"] for job in jobs] == [5.0, 5.5, 6.0, 8.0, 9.0, 9.5]
    table = json.loads((sweep / "sweep.json").read_text())
    assert table["finished"] and [group["score"]["mean"] for group in table["groups"]] == [5.25, 7.0, 9.25]
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "data.train_limit" in line and "seed" not in line]
    assert [row.split()[1] for row in rows[:3]] == [f"data.train_limit={limit}" for limit in (4000, 1000, 500)]
    half = 12.7062 * 0.25  # sd sqrt(2) * 0.25, over sqrt(2)
    assert f"{5.25 - half:.4f} to {5.25 + half:.4f}" in rows[0] and "0.3536" in rows[0]
    assert "data.train_limit=4000 over 2 jobs" in out


def test_results_of_mode_max_are_ranked_from_the_highest(sweep: Path) -> None:
    jobs = finish_sweep(sweep, "val/age_cs5", "max", with_report=False)
    assert [job["score"] for job in jobs] == [9.5, 9.0, 8.0, 6.0, 5.5, 5.0]
    groups = json.loads((sweep / "sweep.json").read_text())["groups"]
    assert [group["score"]["mean"] for group in groups] == [9.25, 7.0, 5.25]


def test_results_of_one_numeric_setting_are_plotted(sweep: Path) -> None:
    finish_sweep(sweep, "val/age_mae", "min", with_report=False)
    with Image.open(sweep / "sweep.png") as plot:
        assert plot.format == "PNG" and plot.width > 400


def test_results_with_a_failed_job_are_unfinished(sweep: Path) -> None:
    record = json.loads((sweep / "0/job.json").read_text()) | {"score": None, "error": "it failed"}
    (sweep / "0/job.json").write_text(json.dumps(record))
    assert finish_sweep(sweep, "val/age_mae", "min", with_report=False)[-1]["error"] == "it failed"
    table = json.loads((sweep / "sweep.json").read_text())
    assert not table["finished"]
    assert [(group["jobs"], group["failed"]) for group in table["groups"]] == [([4, 5], []), ([1], [0]), ([2, 3], [])]


@pytest.mark.slow
def test_learning_curve_varies_the_training_faces_only(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "sweep=learning_curve", *TINY, "data.train_limit=20,999", "hydra.sweep.dir=sweep")
    assert outcome.code == 0, outcome.err
    few, all_faces = (metrics_of(tmp_path / f"sweep/{job}") for job in (0, 1))
    assert (few["images/train"], all_faces["images/train"]) == (20, 86) and few["images/val"] == all_faces["images/val"]
    assert not any(name.startswith("test/") for name in few) and (tmp_path / "sweep/sweep.png").is_file()
