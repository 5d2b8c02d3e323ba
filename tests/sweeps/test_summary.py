"""The summary of a multirun ranks its jobs by score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of

# Without a test, a job ends after its training.
SHORT = (*TINY, "test=false", "trainer.max_epochs=1")


def test_summary_lists_the_better_job_first_and_jobs_equal_single_runs(
    run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path
) -> None:
    outcome = run_here("train.py", "-m", *TINY, "optim.lr=1e-5,1e-3", "name=mine")
    assert outcome.code == 0, outcome.err
    (sweep,) = (tmp_path / "logs" / "mine").iterdir()
    assert sweep.name.startswith("sweep_") and not set("=,") & set(sweep.name)
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0", "1"}
    table = json.loads((sweep / "sweep.json").read_text())
    assert table["monitor"] == "val/age_mae"
    scores = [job["score"] for job in table["jobs"]]
    assert len(scores) == 2 and scores == sorted(scores) and scores[0] < scores[1]
    for job in table["jobs"]:
        folder = sweep / str(job["job"])
        assert job["score"] == metrics_of(folder)["best_score"] == metrics_of(folder)["val/age_mae"]
        rate = next(item.split("=")[1] for item in job["overrides"] if item.startswith("optim.lr="))
        assert float(rate) == (1e-5, 1e-3)[job["job"]]
        assert (folder / "checkpoints/best.ckpt").is_file()
    assert f"{scores[0]:.4f}" in outcome.out
    assert scores[0] == metrics_of(trained_run)["best_score"]  # no state leaks from the previous job


@pytest.mark.slow
def test_summary_with_mode_max_lists_the_highest_score_first(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "-m", *SHORT, "monitor=val/age_cs5", "optim.lr=1e-6,1e-2", "hydra.sweep.dir=sweep")
    assert outcome.code == 0, outcome.err
    scores = [job["score"] for job in json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)


def test_failed_job_ends_neither_the_others_nor_the_summary_which_ignores_an_older_sweep(
    run_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    old = tmp_path / "sweep/7"
    old.mkdir(parents=True)
    record = {"sweep": "older", "job": 7, "overrides": [], "score": 1.0, "error": None}
    (old / "job.json").write_text(json.dumps(record))
    outcome = run_here("train.py", "-m", *SHORT, "data.batch_size=0,16", "hydra.sweep.dir=sweep")
    outcome.assert_one_line_error("error: 1 of 2 jobs failed; job 0: data.batch_size=0 ")
    better, failed = json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]
    assert (better["job"], failed["job"]) == (1, 0) and failed["score"] is None
    assert better["score"] == metrics_of(tmp_path / "sweep/1")["best_score"]
    assert failed["error"].startswith("data.batch_size=0 ")
    assert f"{better['score']:.4f}" in outcome.out and "failed" in outcome.out
    assert json.loads((old / "job.json").read_text()) == record


@pytest.mark.slow
def test_grid_runs_every_combination_and_never_tests(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "sweep=grid", *TINY, "model.dropout=0.1", "hydra.sweep.dir=sweep")
    assert outcome.code == 0, outcome.err
    jobs = json.loads((tmp_path / "sweep/sweep.json").read_text())["jobs"]
    rates = [item for job in jobs for item in job["overrides"] if item.startswith("optim.lr")]
    assert sorted(rates) == ["optim.lr=0.0003", "optim.lr=0.001", "optim.lr=0.003"]
    assert all("model.dropout=0.1" in job["overrides"] for job in jobs)
    assert not list(tmp_path.glob("sweep/*/predictions.csv"))
    assert not any(key.startswith("test/") for job in jobs for key in metrics_of(tmp_path / f"sweep/{job['job']}"))


@pytest.mark.parametrize(("monitor", "best_of"), [("val/age_mae", min), ("val/gender_auroc", max)])
def test_score_of_a_run_is_that_of_its_best_epoch(
    run_here: Callable[..., Outcome], tmp_path: Path, monitor: str, best_of: Callable[[list[float]], float]
) -> None:
    # The learning rate is so high that scores fluctuate: the last epoch is unlikely to be the best.
    settings = ("logger=csv", "test=false", "optim.lr=3e-2", "trainer.max_epochs=5", "callbacks.early_stopping=null")
    outcome = run_here("train.py", *TINY, *settings, f"monitor={monitor}", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    header, *lines = (tmp_path / "run/csv/metrics.csv").read_text().splitlines()
    column = header.split(",").index(monitor)
    scores = [float(line.split(",")[column]) for line in lines if line.split(",")[column]]
    assert len(scores) >= 5
    results = metrics_of(tmp_path / "run")
    assert results["best_score"] == results[monitor] == pytest.approx(best_of(scores), rel=1e-6)
