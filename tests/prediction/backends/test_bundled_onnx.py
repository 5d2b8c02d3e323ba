"""The bundled ONNX file predicts as its checkpoint does, and `backend=onnx` imports no PyTorch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Outcome

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import BUNDLED_FILE, OnnxBackend
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export.parity import check_faces, check_quantized, run_backend
from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor

# Refuses the import even where a library would go on without the package.
WITHOUT_TORCH = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "torchmetrics", "tensorboard"):
            raise AssertionError(name + " is imported")

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
if sys.argv[0] == "-c":
    exec(sys.argv[1])
elif sys.argv[0] == "serve":
    runpy.run_module("agegender", run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_torch(*arguments: str, cwd: Path) -> Outcome:
    """Runs a program in a process that can't import PyTorch."""
    command, environment = [sys.executable, "-c", WITHOUT_TORCH, *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_bundled_file_keeps_the_predictions_of_its_checkpoint() -> None:
    ours, theirs = OnnxBackend("small"), TorchBackend("small", "cpu")
    assert ours.tasks == theirs.tasks and ours.weights == BUNDLED_FILE and not ours.trained_on_synthetic
    pixels = check_faces(None, theirs.image_size, theirs.grayscale).pixels
    found, expected = run_backend(ours, pixels), run_backend(theirs, pixels)
    assert np.abs(found["age"] - expected["age"]).mean() < 0.3  # the network doesn't know drawn faces: 0.16
    assert np.abs(found["p_female"] - expected["p_female"]).mean() < 0.005
    assert expected["age"].std() > 3


@pytest.mark.slow
@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="needs UTKFACE_DIR")
def test_bundled_file_keeps_the_predictions_on_real_faces_within_a_twentieth_of_a_year() -> None:
    ours, theirs = OnnxBackend("small"), TorchBackend("small", "cpu")
    faces = check_faces(os.environ["UTKFACE_DIR"], theirs.image_size, theirs.grayscale)
    check_quantized(run_backend(ours, faces.pixels), run_backend(theirs, faces.pixels), theirs.tasks, "int8", faces)


def test_bundled_file_is_small_and_its_command_is_known() -> None:
    assert BUNDLED_FILE.stat().st_size < 3_000_000
    command = json.loads(BUNDLED_FILE.with_suffix(".json").read_text())["onnx_command"]
    assert command.startswith("agegender export weights=small precision=int8 check=")


def test_default_weights_with_onnx_are_the_bundled_file_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert OnnxBackend("small").weights == BUNDLED_FILE and capsys.readouterr().err == ""
    assert OnnxBackend("default").weights == BUNDLED_FILE
    line = "backend=onnx takes weights=small, the bundled network in int8; for the default one, "
    assert capsys.readouterr().err == f"{line}agegender export weights=face out=model.onnx\n"
    with pytest.raises(AgeGenderError, match=r"^weights=face needs an exported file"):
        OnnxBackend("face")


def test_refusal_of_torch_refuses_it(tmp_path: Path) -> None:
    outcome = without_torch("-c", "import torch", cwd=tmp_path)
    assert outcome.code == 1 and "AssertionError: torch is imported" in outcome.err


def test_predict_with_onnx_finds_faces_without_importing_torch(faces: Path, tmp_path: Path) -> None:
    face = str(min(faces.glob("*.jpg")))
    outputs = ("out=faces.json", "annotate=marked")
    outcome = without_torch(str(ROOT / "predict.py"), face, "backend=onnx", *outputs, cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "backend=onnx takes weights=small" in outcome.err and len(list((tmp_path / "marked").iterdir())) == 1
    predictor = Predictor("small", detect="auto", backend="onnx")
    assert json.loads((tmp_path / "faces.json").read_text()) == [
        to_row(one, predictor.tasks) for one in predictor(face)
    ]


def test_serve_with_onnx_answers_without_importing_torch(faces: Path, tmp_path: Path) -> None:
    face = min(faces.glob("*.jpg"))
    command = [sys.executable, "-c", WITHOUT_TORCH, "serve", "serve", "backend=onnx", "weights=small", "port=0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = re.search(r"ready: (http://\S+)", server.stdout.readline())
            assert ready is not None

            def ask(path: str, data: bytes | None = None) -> Any:
                with urllib.request.urlopen(f"{ready[1]}{path}", data, timeout=60) as reply:
                    return json.load(reply)

            info = ask("/api/info")
            assert (info["weights"], info["figures"]["images"]) == ("small.onnx", 4659)
            answer = ask("/api/predict?detect=never", face.read_bytes())
        finally:
            server.terminate()
    (expected,) = Predictor("small", detect="never", backend="onnx")(face)
    assert answer["faces"][0]["age"] == pytest.approx(expected.age, abs=0.01)


def test_predict_with_torch_names_the_other_backend_where_torch_is_missing(faces: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.argv = ["predict", {str(min(faces.glob("*.jpg")))!r}, "out=-"]
from agegender.cli.commands import start
start("predict")
"""
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: PyTorch is not installed: use backend=onnx, or install torch\n"


def test_address_of_an_image_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    (found,) = Predictor("small", detect="never", backend="onnx")("http://127.0.0.1:9/a.jpg")
    assert found.error == "addresses need a package that is missing: pip install requests"
