"""Weights & Biases and MLflow, offline: settings, best metrics and images; a resumed run continues its record."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of

Run = Callable[..., Outcome]

PICTURES = ("age_true_vs_predicted", "faces", "gender_confusion")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    offline = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_ERROR_REPORTING": "false",
    }
    for name, value in {**offline, "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_wandb_receives_settings_best_metrics_and_images(run_here: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    outcome = run_here("train.py", *TINY, "logger=[csv,wandb]", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    (run,) = offline_runs(tmp_path / "run")
    (record,) = run.glob("*.wandb")
    best = repr(metrics_of(tmp_path / "run")["val/age_mae"]).encode()
    until = time.monotonic() + 60  # wandb writes in its own process, with a delay
    while not all(part in record.read_bytes() for part in (b"optim.lr", b"val/loss", b"best/val/age_mae", best)):
        assert time.monotonic() < until, record.read_bytes()
        time.sleep(0.1)
    names = [path.name for path in (run / "files/media/images/val").iterdir()]
    assert all(sum(name.startswith(picture) for name in names) == 2 for picture in PICTURES)  # one per epoch
    assert "best/val/age_mae" in (tmp_path / "run/csv/metrics.csv").read_text()
    assert "optim.lr: 0.001" in (tmp_path / "run/csv/hparams.yaml").read_text()


@pytest.mark.slow
def test_wandb_has_one_run_per_job_and_continues_it_on_resume(run_here: Run, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    once = ("logger=wandb", "trainer.max_epochs=1", "test=false")
    assert run_here("train.py", "-m", *TINY, *once, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    ids = [(tmp_path / "sweep" / job / "wandb/run_id").read_text().strip() for job in "01"]
    assert ids[0] != ids[1] and all(len(offline_runs(tmp_path / "sweep" / job)) == 1 for job in "01")
    assert run_here("train.py", "resume=sweep/1", "trainer.max_epochs=2").code == 0
    assert all(f"-{ids[1]}" in run.name for run in offline_runs(tmp_path / "sweep/1"))
    assert (tmp_path / "sweep/1/wandb/run_id").read_text().strip() == ids[1]


@pytest.mark.slow
def test_mlflow_continues_its_run_on_resume_with_all_that_was_logged(run_here: Run, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("alembic")
    outcome = run_here("train.py", *TINY, "logger=mlflow", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert run_here("train.py", "resume=run", "trainer.max_epochs=2").code == 0
    client = tracking.MlflowClient(f"sqlite:///{tmp_path}/logs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("agegender").experiment_id])
    assert run.info.run_id == (tmp_path / "run/mlflow/run_id").read_text().strip() and run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.001" and run.data.params["trainer.max_epochs"] == "1"
    assert run.data.tags["resumed.trainer.max_epochs"] == "2"
    assert run.data.metrics["best/val/age_mae"] == pytest.approx(metrics_of(tmp_path / "run")["val/age_mae"])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/age_mae")] == [5, 11]
    names = [item.path for item in client.list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")]
    assert all(sum(picture in name for name in names) == 2 for picture in PICTURES)
    assert (tmp_path / "logs/mlflow_artifacts").is_dir() and not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_missing_tracker_package_is_refused_in_one_line_with_the_extra(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    monkeypatch.setitem(sys.modules, logger, None)
    outcome = run_here("train.py", *TINY, f"logger={logger}", "hydra.run.dir=run")
    outcome.assert_one_line_error(
        f"error: logger={logger} needs a package that is missing ({logger}", f'pip install "agegender[{logger}]"'
    )
    assert not (tmp_path / "run").exists()
