"""Bundled weights: small, in half precision, with their metrics, loadable alone and free of local paths."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Outcome, metrics_of

from agegender.errors import AgeGenderError
from agegender.evaluation.report.comparison import build_report, report_json
from agegender.prediction.backends.onnx_backend import BUNDLED_NAMES
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.predictor import Predictor
from agegender.runs.checkpoint import BUNDLED_WEIGHTS, load_checkpoint
from agegender.weights.age_bands import read_age_bands
from agegender.weights.bundle import bundle, bundle_command

Run = Callable[..., Outcome]
COMMAND = "agegender/weights/__main__.py"


def test_bundle_gives_the_predictions_of_its_run(trained_run: Path, faces: Path, tmp_path: Path) -> None:
    out = bundle(trained_run, tmp_path / "packed.ckpt")
    best = trained_run / "checkpoints" / "best.ckpt"
    assert out.stat().st_size < best.stat().st_size / 3  # no optimizer, and half the bytes
    pictures = sorted(faces.glob("*.jpg"))[:16]
    for ours, theirs in zip(
        Predictor(out, detect="never").predict(pictures), Predictor(best, detect="never").predict(pictures), strict=True
    ):
        assert ours.age == pytest.approx(theirs.age, abs=0.1)
        assert ours.p_female == pytest.approx(theirs.p_female, abs=0.01)
        assert ours.age_std == pytest.approx(theirs.age_std, rel=0.01)
        assert ours.age_low == pytest.approx(theirs.age_low, abs=1)


def test_bundle_describes_itself_and_names_no_local_folder(trained_run: Path, tmp_path: Path) -> None:
    out = bundle(trained_run, tmp_path / "packed.ckpt")
    held = load_checkpoint(out)
    assert set(held) == {"agegender", "state_dict", "network"}
    assert held["network"]["tasks.age._extra_state"] and held["network"]["tasks.gender._extra_state"]
    assert held["agegender"]["split"]["fingerprint"]
    halved = {value.dtype for value in held["network"].values() if isinstance(value, torch.Tensor) and value.ndim > 1}
    assert halved == {torch.float16}
    told, figures = json.loads(out.with_suffix(".json").read_text()), metrics_of(trained_run)
    assert told["test/age_mae"] == figures["test/age_mae"]
    assert told["split_fingerprint"] == held["agegender"]["split"]["fingerprint"]
    assert told["command"].startswith("python train.py data=synthetic ")
    assert str(trained_run) not in json.dumps({**told, "command": ""})


def test_bundle_takes_age_band_metrics_from_the_runs_report(trained_run: Path, tmp_path: Path) -> None:
    plain = json.loads(bundle(trained_run, tmp_path / "plain.ckpt").with_suffix(".json").read_text())
    assert "bands" not in plain  # this run has no report
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    report = build_report([run], {"resamples": 20, "faces": 0, "seed": 0}, "agegender report")
    (run / "report").mkdir()
    (run / "report" / "report.json").write_text(json.dumps(report_json(report)))  # without the page and its plots
    packed = json.loads(bundle(run, tmp_path / "packed.ckpt").with_suffix(".json").read_text())
    bands = packed.pop("bands")
    assert packed == plain and bands == read_age_bands(run)
    slices = json.loads((run / "report" / "report.json").read_text())["runs"][0]["slices"]["age"]
    assert [band["ages"] for band in bands] == [part["name"] for part in slices]
    assert sum(band["images"] for band in bands) == metrics_of(run)["images/test"]
    for band, part in zip(bands, slices, strict=True):
        assert set(band) == {"ages", "images", "age_mae", "gender_acc", "coverage"}
        for name, metric in {"age_mae": "age_mae", "gender_acc": "gender_acc", "coverage": "age_coverage"}.items():
            assert band[name] == pytest.approx(part["metrics"][metric]["value"], abs=1e-4)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": []}', '{"runs": [{"slices": {"age": [1]}}]}'])
def test_bundle_refuses_a_damaged_report_and_writes_nothing(content: str, trained_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / "report").mkdir()
    (run / "report" / "report.json").write_text(content)
    with pytest.raises(AgeGenderError, match=r"report\.json can't be read as a report"):
        bundle(run, tmp_path / "packed.ckpt")
    assert not (tmp_path / "packed.ckpt").exists()


def test_age_bands_of_a_report_without_intervals_have_no_coverage(tmp_path: Path) -> None:
    metrics = {"age_mae": {"value": 1.23456}, "age_bias": {"value": 1}, "smile_acc": {"value": None}}
    part = {"name": "0-2", "images": 3, "metrics": metrics}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps({"runs": [{"slices": {"age": [part]}}]}))
    expected = {"ages": "0-2", "images": 3, "age_mae": 1.2346, "smile_acc": None, "coverage": None}
    assert read_age_bands(tmp_path) == [expected]
    (tmp_path / "report" / "report.json").write_text(json.dumps({"runs": [{"slices": {"smile": [part]}}]}))
    assert read_age_bands(tmp_path) is None


def test_bundle_is_evaluated_again_by_train(trained_run: Path, run_here: Run, tmp_path: Path) -> None:
    bundle(trained_run, tmp_path / "packed.ckpt")
    again = run_here("train.py", *TINY, "fit=false", "weights=packed.ckpt", "hydra.run.dir=again")
    assert again.code == 0, again.err
    measured, figures = metrics_of(tmp_path / "again"), metrics_of(trained_run)
    assert measured["test/age_mae"] == pytest.approx(figures["test/age_mae"], abs=0.05)


BOUNDS = {"face": (9_000_000, 4_400_000), "small": (6_000_000, 3_000_000)}  # bytes, parameters


def test_bundled_names_equal_those_known_to_the_onnx_backend() -> None:
    assert set(BUNDLED_WEIGHTS) == set(BUNDLED_NAMES) == {"default", *BOUNDS}
    assert BUNDLED_WEIGHTS["default"] == BUNDLED_WEIGHTS["face"]


@pytest.mark.parametrize("name", BOUNDS)
def test_bundled_weights_match_their_description(name: str) -> None:
    file, (size, parameters) = BUNDLED_WEIGHTS[name], BOUNDS[name]
    assert file.stat().st_size <= size
    held, told = load_checkpoint(file), json.loads(file.with_suffix(".json").read_text())
    shipped = TorchBackend(name, "cpu")
    assert shipped.weights == file and not shipped.trained_on_synthetic
    assert sum(weight.numel() for weight in shipped.network.parameters()) == told["parameters"] <= parameters
    assert all(task.calibration is not None for _, task in shipped.network.each_task())
    assert held["agegender"]["split"]["fingerprint"] == told["split_fingerprint"]
    assert told["duplicates"] == "near" and f"experiment={name}" in told["command"]
    assert {"test/age_mae", "test/age_cs5", "test/gender_acc", "best_epoch", "hardware", "license"} <= set(told)
    assert name != "face" or "non-commercial research only" in told["origin"]


@pytest.mark.slow
@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR names no folder of real faces")
@pytest.mark.parametrize("name", BOUNDS)
def test_bundled_weights_reach_their_published_metrics(run_here: Run, tmp_path: Path, name: str) -> None:
    folder = Path(os.environ["UTKFACE_DIR"]).resolve()
    options = ("fit=false", f"weights={name}", f"data.dir={folder}", "report=false", "hydra.run.dir=again")
    again = run_here("train.py", *options)
    assert again.code == 0, again.err
    measured, told = metrics_of(tmp_path / "again"), json.loads(BUNDLED_WEIGHTS[name].with_suffix(".json").read_text())
    assert measured["split_fingerprint"] == told["split_fingerprint"]
    assert measured["test/age_mae"] == pytest.approx(told["test/age_mae"], abs=0.05)
    assert measured["test/gender_acc"] == pytest.approx(told["test/gender_acc"], abs=0.005)


def test_bundle_refuses_a_run_without_metrics(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").symlink_to(trained_run / "checkpoints" / "best.ckpt")
    with pytest.raises(AgeGenderError, match=r"no metrics\.json"):
        bundle(tmp_path, tmp_path / "packed.ckpt")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(AgeGenderError, match="no test metrics"):
        bundle(tmp_path, tmp_path / "packed.ckpt")
    assert not (tmp_path / "packed.ckpt").exists()


def test_bundle_command_reports_the_size(trained_run: Path, run_here: Run, tmp_path: Path) -> None:
    done = run_here(COMMAND, f"run={trained_run}", "out=packed.ckpt")
    size = (tmp_path / "packed.ckpt").stat().st_size / 1e6
    assert (done.code, done.out.strip()) == (0, f"packed.ckpt: {size:.2f} MB, the weights of {trained_run}")
    assert (tmp_path / "packed.json").is_file()


def test_bundle_command_takes_the_newest_tested_run_of_a_folder(trained_run: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("old", "new", "untested"), 1):
        shutil.copytree(trained_run, tmp_path / "logs" / "tiny" / name)
        os.utime(tmp_path / "logs" / "tiny" / name / "checkpoints" / "best.ckpt", (number, number))
    (tmp_path / "logs" / "tiny" / "untested" / "metrics.json").unlink()
    for given in ("logs", "logs/tiny", "logs/tiny/new"):
        out = tmp_path / "packed.ckpt"
        run, _ = bundle_command(str(tmp_path / given), str(out))
        assert run == tmp_path / "logs" / "tiny" / "new" and out.is_file()
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgeGenderError, match="holds no tested run"):
        bundle_command(str(tmp_path / "empty"), str(tmp_path / "none.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "agegender bundle run=logs/small out=small.ckpt"),
        (("run=logs",), "agegender bundle run=logs/small out=small.ckpt"),
        (("run=", "out=a.ckpt"), "agegender bundle run=logs/small out=small.ckpt"),
        (("run=logs", "out=a.ckpt", "size=8"), "size is not known; choose from format, out, run"),
        (("logs", "a.ckpt"), "logs is not a setting; write name=value"),
    ],
    ids=["nothing", "no place", "no run", "one too many", "no names"],
)
def test_bundle_command_refuses_wrong_arguments_in_one_line(
    arguments: tuple[str, ...], told: str, run_here: Run
) -> None:
    done = run_here(COMMAND, *arguments)
    assert done.code in (1, 2)
    done.assert_one_line_error(told, code=done.code)
