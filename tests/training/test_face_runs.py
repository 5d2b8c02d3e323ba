"""Whole runs with a face-recognition trunk: frozen on cached features, fine-tuned, predicted, exported."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome, metrics_of
from helpers.made_face_weights import make_face_weights
from helpers.stopped_runs import differences

from agegender.prediction.export.export import export
from agegender.runs.checkpoint import load_checkpoint

Run = Callable[..., Outcome]
SMALL = (
    *("data=synthetic", "data.synthetic.count=60", "data.synthetic.size=64", "data.image_size=48"),
    *("trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "report=false", "data.batch_size=16"),
    *("model.pretrained=made.onnx", "model.trunk.backbone=mobilefacenet", "data.cache_dir=cache"),
)


@pytest.fixture
def probe(run_here: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a probe beside its `made.onnx`, which lies in `tmp_path` too; trained once. Read only."""
    folder = tmp_path_factory.getbasetemp() / "probe"
    make_face_weights(tmp_path / "made.onnx")
    if not folder.exists():
        done = run_here("train.py", "experiment=face_probe", *SMALL, f"hydra.run.dir={folder}")
        assert done.code == 0, done.err
        assert "computing the trunk's features of" in done.out and "eval mode" not in done.err
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_probe_trains_the_heads_only_and_predicts_as_in_its_test(run_here: Run, probe: Path, tmp_path: Path) -> None:
    network = load_checkpoint(probe / "checkpoints" / "best.ckpt")["network"]
    made = make_face_weights(tmp_path / "again.onnx").state_dict()
    for name, value in made.items():
        torch.testing.assert_close(network[f"trunk.{name}"], value, rtol=1e-5, atol=1e-6)
    assert float(network["scaler.std"].min()) > 0 and not torch.equal(network["scaler.std"], torch.ones(2816))
    tested = rows_of(probe / "predictions.csv")
    done = run_here(
        "predict.py",
        f"img=[{','.join(row['path'] for row in tested[:6])}]",
        "detect=never",
        f"weights={probe}",
        "out=a.csv",
    )
    assert done.code == 0, done.err
    answers = {row["path"]: row for row in rows_of(tmp_path / "a.csv")}
    for row in tested[:6]:
        predicted = answers[row["path"]]
        assert float(predicted["age"]) == pytest.approx(float(row["age_pred"]), abs=0.1)
        assert float(predicted["p_female"]) == pytest.approx(float(row["p_female"]), abs=0.01)


def test_probe_is_tested_on_images_without_a_split(run_here: Run, probe: Path, tmp_path: Path) -> None:
    judged = ("experiment=face_probe", *SMALL, f"weights={probe}", "fit=false", "data.split=test")
    done = run_here("train.py", *judged, "hydra.run.dir=judged")
    assert done.code == 0, done.err
    assert len(rows_of(tmp_path / "judged" / "predictions.csv")) == 60


@pytest.mark.slow
def test_probe_resumes_between_epochs_to_the_same_bits(run_here: Run, probe: Path, tmp_path: Path) -> None:
    short = [setting for setting in SMALL if not setting.startswith("trainer.max_epochs")]
    schedule = "optim.scheduler=null"  # a cosine depends on the length of the training
    whole = run_here("train.py", "experiment=face_probe", *SMALL, schedule, "hydra.run.dir=whole")
    one = run_here("train.py", "experiment=face_probe", *short, schedule, "trainer.max_epochs=1", "hydra.run.dir=parts")
    two = run_here("train.py", "resume=parts", "trainer.max_epochs=2")
    assert (whole.code, one.code, two.code) == (0, 0, 0), two.err
    ends = [load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "parts")]
    assert differences(ends[0]["network"], ends[1]["network"]) == []
    origins = {end["agegender"]["origin"] for end in ends}  # name and license of the published weights
    assert len(origins) == 1 and None not in origins


@pytest.mark.slow
def test_fine_tuning_starts_at_the_probe_and_moves_upper_layers_only(
    run_here: Run, probe: Path, tmp_path: Path
) -> None:
    options = (f"weights={probe}", "trainer.max_epochs=1", "hydra.run.dir=tuned")
    done = run_here("train.py", "experiment=face", *SMALL, *options)
    assert done.code == 0, done.err
    before, after = (
        load_checkpoint(run / "checkpoints" / "best.ckpt")["network"] for run in (probe, tmp_path / "tuned")
    )
    moved = {place.removeprefix(".") for place in differences(before, after)}
    assert any(name.startswith("trunk.stages.2.") for name in moved) and any(
        name.startswith("heads.age.") for name in moved
    )
    assert not any(name.startswith(("trunk.stages.0.", "trunk.stages.1.", "scaler.")) for name in moved)
    assert metrics_of(tmp_path / "tuned")["split_fingerprint"] == metrics_of(probe)["split_fingerprint"]


@pytest.mark.slow
def test_fine_tuning_resumes_with_its_own_weights(run_here: Run, probe: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    shutil.copytree(probe, tmp_path / "logs" / "face_probe")  # the default weights of the experiment
    options = ("optim.scheduler=null", "hydra.run.dir=tuned")
    begun = run_here("train.py", "experiment=face", *SMALL, *options, "trainer.max_epochs=1")
    assert begun.code == 0, begun.err
    done = run_here("train.py", "resume=tuned", "trainer.max_epochs=2")
    assert done.code == 0, done.err
    assert metrics_of(tmp_path / "tuned")["epochs"] == 2


def test_fine_tuning_without_the_probe_is_refused_with_a_remedy(run_here: Run, tmp_path: Path) -> None:
    make_face_weights(tmp_path / "made.onnx")
    done = run_here("train.py", "experiment=face", *SMALL)
    done.assert_one_line_error("logs/face_probe")


@pytest.mark.slow
def test_exported_face_network_predicts_as_pytorch(probe: Path, tmp_path: Path) -> None:
    export(str(tmp_path / "model.onnx"), str(probe))  # raises if the predictions differ
    assert (tmp_path / "model.onnx").stat().st_size > 10_000_000


def test_streaming_data_refuses_feature_statistics(run_here: Run, tmp_path: Path) -> None:
    make_face_weights(tmp_path / "made.onnx")
    weights = ("model.pretrained=made.onnx", "model.trunk.backbone=mobilefacenet")
    done = run_here("train.py", "experiment=face_probe", "data=streaming", "data.dir=shards", *weights)
    done.assert_one_line_error("set model.feature_clip=null")
