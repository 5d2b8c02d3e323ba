"""The ONNX backend predicts as the checkpoint does, without PyTorch, and refuses any other file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ROOT, Outcome
from helpers.made_networks import CONFIDENCE, save_network
from onnx import helper

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import FORMAT, OnnxBackend
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export.onnx_graph import build_graph, save_graph
from agegender.prediction.export.parity import check_faces, check_parity
from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def folder(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds tiny.ckpt, which is unsure of some drawn faces, and, exported from it, tiny.onnx. Read only."""
    folder = tmp_path_factory.mktemp("networks")
    made: dict[str, Any] = {"in_channels": 1, "pictures": "drawn"}
    always = Predictor(save_network(folder / "tiny.ckpt", **made), "cpu", detect="never")
    found = always.predict(sorted(faces.glob("*.jpg")))
    ranked = sorted(max(face.p_female, 1 - face.p_female) for face in found if face.p_female is not None)
    widest = max(range(30, 90), key=lambda place: ranked[place + 1] - ranked[place])
    bound = (ranked[widest] + ranked[widest + 1]) / 2  # no face lies within rounding of it
    save_network(folder / "tiny.ckpt", confidence=replace(CONFIDENCE, min_confidence=bound), **made)
    save_graph(build_graph(TorchBackend(folder / "tiny.ckpt", "cpu")), folder / "tiny.onnx")
    return folder


@pytest.fixture(scope="module")
def no_exports(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds files and a folder that are no export, or a damaged one. Read only."""
    where = tmp_path_factory.mktemp("no_exports")
    (where / "run").mkdir()
    shutil.copy(folder / "tiny.ckpt", where / "tiny.ckpt")
    (where / "half.onnx").write_bytes((folder / "tiny.onnx").read_bytes()[:2000])
    (where / "text.onnx").write_text("hello")
    (where / "empty.onnx").touch()
    model = onnx.load(folder / "tiny.onnx")
    metadata = {each.key: each.value for each in model.metadata_props if each.key != "sha256"}
    for name, version in (("later", FORMAT + 1), ("earlier", 1)):  # format 1 lacks tasks
        helper.set_model_props(model, metadata | {"agegender_format": str(version)})
        save_graph(model, where / f"{name}.onnx")
    helper.set_model_props(model, metadata)
    onnx.save(model, where / "unsealed.onnx")
    helper.set_model_props(model, {})
    onnx.save(model, where / "other.onnx")
    content = bytearray((folder / "tiny.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (where / "flipped.onnx").write_bytes(content)
    return where


# Predictions


def test_onnx_backend_predicts_as_pytorch_without_importing_it(folder: Path, faces: Path, tmp_path: Path) -> None:
    pictures = sorted(faces.glob("*.jpg"))[:20]
    names = [str(path) for path in [*pictures, "missing.jpg"]]
    settings = ["backend=onnx", f"weights={folder / 'tiny.onnx'}", "detect=never", "out=answers.json"]
    script = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = {[str(ROOT / "predict.py"), *[f"img={name}" for name in names], *settings]!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(end.code)
print(sorted({{"torch", "torchvision", "lightning"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["1", "[]"], done.stderr  # 1: one picture is missing
    assert "trained on drawn faces" in done.stderr
    rows = json.loads((tmp_path / "answers.json").read_text())
    predictor = Predictor(folder / "tiny.ckpt", "cpu", detect="never")
    expected = [to_row(each, predictor.tasks) for each in predictor.predict(names)]
    assert len(rows) == 21 and len({row["age"] for row in rows}) > 15
    for ours, theirs in zip(rows, expected, strict=True):
        for name, value in theirs.items():
            close = isinstance(value, float) and name in ("age", "age_std", "p_female")
            assert ours[name] == (pytest.approx(value, abs=0.011 if name != "p_female" else 2e-4) if close else value)


def test_onnx_backend_keeps_the_attributes_of_the_exported_network(folder: Path) -> None:
    ours, theirs = OnnxBackend(folder / "tiny.onnx"), TorchBackend(folder / "tiny.ckpt", "cpu")
    for name in (
        "image_size",
        "grayscale",
        "tasks",
        "trained_on_synthetic",
        "prefers_large_batches",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.grayscale and ours.trained_on_synthetic
    assert ours.weights == folder / "tiny.onnx"


def test_onnx_backend_is_unsure_of_the_same_faces_as_pytorch(folder: Path, faces: Path) -> None:
    pictures = [str(path) for path in sorted(faces.glob("*.jpg"))]
    ours = Predictor(folder / "tiny.onnx", "cpu", detect="never", backend="onnx")
    theirs = Predictor(folder / "tiny.ckpt", "cpu", detect="never")
    bound = theirs.tasks[1].min_confidence
    assert ours.tasks == theirs.tasks and bound is not None and bound > 0.5
    found = list(theirs.predict(pictures))
    unsure = sum(max(face.p_female, 1 - face.p_female) < bound for face in found if face.p_female is not None)
    genders = [face.gender for face in ours.predict(pictures)]
    assert genders == [face.gender for face in found] and genders.count("unsure") == unsure > 30
    given = Predictor(folder / "tiny.onnx", "cpu", detect="never", backend="onnx", min_confidence=0.5)
    assert "unsure" not in {face.gender for face in given.predict(pictures)}


def test_onnx_backend_is_thread_safe(folder: Path) -> None:
    network, pixels = OnnxBackend(folder / "tiny.onnx"), check_faces(None, 32, grayscale=True).pixels
    alone = [network(pixels[start : start + 8]) for start in range(0, 64, 8)]
    with network.worker_context(), ThreadPoolExecutor(4, initializer=network.init_worker) as pool:
        together = list(pool.map(lambda start: network(pixels[start % 64 : start % 64 + 8]), range(0, 640, 8)))
    for number, answers in enumerate(together):
        for name, values in answers.items():
            assert np.array_equal(values, alone[number % 8][name], equal_nan=True)


def test_onnx_backend_accepts_non_contiguous_arrays(folder: Path) -> None:
    network, pixels = OnnxBackend(folder / "tiny.onnx"), check_faces(None, 32, grayscale=True).pixels
    whole = {name: values[::2] for name, values in network(pixels).items()}
    check_parity(network(pixels[::2]), whole, network.tasks, "these")


# User errors


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("face", "agegender export weights=face out=model.onnx"),
        ("missing.onnx", "no model at"),
        ("run", "run is a folder; backend=onnx needs a file: agegender export weights=run "),
        ("tiny.ckpt", "tiny.ckpt is no ONNX model"),
        ("half.onnx", "half.onnx is no ONNX model"),
        ("text.onnx", "weights=<run folder or checkpoint>"),
        ("empty.onnx", "empty.onnx is no ONNX model"),
        ("other.onnx", "an ONNX model without agegender's metadata"),
        ("flipped.onnx", "flipped.onnx is damaged: its checksum doesn't match; export it again"),
        ("unsealed.onnx", "unsealed.onnx is damaged: its checksum is missing; export it again"),
        ("later.onnx", f"later.onnx has format {FORMAT + 1}, this version of agegender reads {FORMAT}"),
        ("earlier.onnx", f"earlier.onnx has format 1, this version of agegender reads {FORMAT}; export it again"),
    ],
)
def test_onnx_backend_refuses_weights_that_are_no_export(
    weights: str, message: str, no_exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(no_exports)
    with pytest.raises(AgeGenderError) as caught:
        Predictor(weights, detect="never", backend="onnx")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_predict_refuses_a_damaged_export_in_one_line(no_exports: Path, run_here: Run) -> None:
    weights = f"weights={no_exports / 'flipped.onnx'}"
    outcome = run_here("predict.py", "img=face.jpg", "backend=onnx", weights, "detect=never")
    outcome.assert_one_line_error("flipped.onnx is damaged: its checksum doesn't match; export it again")


def test_onnx_backend_refuses_a_file_with_any_flipped_bit(folder: Path, tmp_path: Path) -> None:
    whole, flipped = (folder / "tiny.onnx").read_bytes(), tmp_path / "flipped.onnx"
    places = [*range(0, len(whole), len(whole) // 40), *range(len(whole) - 80, len(whole), 3)]
    for number, place in enumerate(places):
        content = bytearray(whole)
        content[place] ^= 1 << number % 8
        flipped.write_bytes(content)
        with pytest.raises(AgeGenderError, match=r"^[^\n]*flipped\.onnx (is|has) [^\n]*$"):
            OnnxBackend(flipped)


def test_torch_backend_refuses_an_exported_model(folder: Path, run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("predict.py", "img=face.jpg", f"weights={folder / 'tiny.onnx'}", "detect=never")
    outcome.assert_one_line_error("backend=onnx")


def test_onnx_backend_names_the_extra_when_the_runtime_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AgeGenderError, match=r'missing \(onnxruntime\): pip install "agegender\[onnx\]"'):
        OnnxBackend(folder / "tiny.onnx")


@pytest.mark.parametrize("settings", [("cuda", "none"), ("cpu", "flip")])
def test_onnx_backend_refuses_unsupported_settings(folder: Path, settings: tuple[str, str]) -> None:
    device, tta = settings
    with pytest.raises(AgeGenderError, match="backend=onnx"):
        Predictor(folder / "tiny.onnx", device, tta, detect="never", backend="onnx")  # type: ignore[arg-type]
