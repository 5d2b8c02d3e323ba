"""Scalars, hyperparameters and images of a run in TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Outcome, metrics_of
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

METRICS = ("loss", "age_loss", "gender_loss", "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc")


@pytest.fixture(scope="module")
def events(trained_run: Path) -> EventAccumulator:
    return EventAccumulator(str(trained_run / "tensorboard"), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_tensorboard_scalars_are_named_by_stage(events: EventAccumulator) -> None:
    by_stage = {f"{stage}/{name}" for stage in ("train", "val") for name in METRICS}
    tags = set(events.Tags()["scalars"])
    assert {tag for tag in tags if not tag.startswith("z_best/")} == by_stage | {"train/loss_step", "train/lr-Adam"}


def test_tensorboards_first_two_groups_are_curves(events: EventAccumulator) -> None:
    """TensorBoard opens the first two groups of scalars, by name, and leaves the others closed."""
    tags = sorted(events.Tags()["scalars"])
    groups = list(dict.fromkeys(tag.split("/")[0] for tag in tags))
    assert groups == ["train", "val", "z_best"]
    shown = [tag for tag in tags if tag.split("/")[0] in groups[:2]]
    assert all(len(events.Scalars(tag)) >= 2 for tag in shown)
    steps = [event.step for event in events.Scalars("train/loss_step")]
    assert steps == list(range(12))  # 2 epochs of 6 steps, each of which is logged (trainer.log_every_n_steps=1)


def test_tensorboard_has_one_point_per_epoch(events: EventAccumulator, trained_run: Path) -> None:
    for name in ("train/loss", "train/age_mae", "val/loss", "val/age_mae"):
        assert [event.step for event in events.Scalars(name)] == [5, 11], name  # 2 epochs of 6 steps
    scores = [event.value for event in events.Scalars("val/age_mae")]
    assert metrics_of(trained_run)["best_score"] == pytest.approx(min(scores), abs=1e-4)


def test_tensorboard_hparams_hold_flat_settings_and_the_best_metrics(
    events: EventAccumulator, trained_run: Path
) -> None:
    plugin = events.PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(plugin["_hparams_/session_start_info"])
    settings = dict(start.session_start_info.hparams.items())
    assert settings["optim.lr"].number_value == 1e-3
    assert settings["model.trunk._target_"].string_value.endswith(".ConvStack")
    assert settings["data.batch_size"].number_value == 16
    assert settings["seed"].number_value == 0 and settings["name"].string_value == "default"
    assert not any(value.string_value.startswith("{'") for value in settings.values())  # nothing nested
    experiment = plugin_data_pb2.HParamsPluginData.FromString(plugin["_hparams_/experiment"])
    named = {info.name.tag for info in experiment.experiment.metric_infos}
    results = metrics_of(trained_run)
    final = {f"z_best/{name}": value for name, value in results.items() if name.startswith(("val/", "test/"))}
    assert named == set(final) and "z_best/val/age_mae" in named and "z_best/test/gender_acc" in named
    for tag, value in final.items():
        (point,) = events.Scalars(tag)
        assert point.value == pytest.approx(value) and point.value != -1
    assert "hp_metric" not in events.Tags()["scalars"]


@pytest.mark.parametrize("name", ["val/faces", "val/age_true_vs_predicted", "val/gender_confusion"])
def test_tensorboard_has_one_non_empty_image_per_validation(events: EventAccumulator, name: str) -> None:
    pictures = events.Images(name)
    assert len(pictures) == 2
    first, second = (np.asarray(Image.open(io.BytesIO(event.encoded_image_string))) for event in pictures)
    assert min(first.shape[:2]) > 200 and len(np.unique(first.reshape(-1, 3), axis=0)) > 20
    assert first.shape == second.shape
    if name != "val/gender_confusion":  # its counts may be equal
        assert (first != second).any()


def test_csv_logger_replaces_tensorboard(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run_here("train.py", *TINY, "logger=csv", "hydra.run.dir=run").code == 0
    table = (tmp_path / "run/csv/metrics.csv").read_text()
    assert "val/age_mae" in table and "train/loss" in table
    assert not (tmp_path / "run/tensorboard").exists()


def test_run_without_a_logger_writes_its_results(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", *TINY, "~logger", "callbacks.learning_rate=null", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "val/age_mae" in metrics_of(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".hydra",
        "best_checkpoint.txt",
        "checkpoints",
        "index.csv",
        "metrics.json",
        "predictions.csv",
        "quarantine.csv",
    }
