"""An export predicts as its checkpoint does and describes itself; an export that differs is not written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, Outcome
from helpers.made_networks import save_network
from helpers.nodes import task_nodes
from onnx import helper, numpy_helper

import agegender
from agegender.errors import EXIT_ERROR, EXIT_USAGE, AgeGenderError
from agegender.prediction.backends.onnx_backend import OnnxBackend
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export import onnx_graph, parity
from agegender.prediction.export.export import export
from agegender.prediction.export.onnx_graph import build_graph, save_graph
from agegender.prediction.export.parity import DRAWN, check_faces, check_parity

Run = Callable[..., Outcome]

AGES: tuple[dict[str, Any], ...] = (  # "mae" is below
    {"name": "mse"},
    {"name": "huber", "output": "relu"},
    {"name": "classes", "decoding": "median"},
    {"name": "dldl"},
    {"name": "coral"},
)


THIRD: dict[str, dict[str, Any]] = {  # names that the exporter gives to values of its own, and odd names of classes
    "linear": {"_target_": "agegender.tasks.Multiclass", "label": "mood", "classes": ["very happy", "so-so", "日本"]},
    "softmax": {"_target_": "agegender.tasks.Binary", "label": "glasses", "classes": ["no", "yes"], "column": "relu"},
    "sigmoid": {"_target_": "agegender.tasks.Regression", "label": "height", "scale": 10.0, "offset": 170.0},
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return check_faces(None, 32, grayscale=False).pixels


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("networks") / "tiny.ckpt")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """The file that the export of `checkpoint` writes, after its comparison with PyTorch. Read only."""
    export(str(checkpoint.with_suffix(".onnx")), str(checkpoint))
    return checkpoint.with_suffix(".onnx")


@pytest.fixture(scope="module")
def graph(exported: Path) -> onnx.ModelProto:
    """The graph of `exported`, without the checksum of the file."""
    graph = onnx.load(exported)
    metadata = {each.key: each.value for each in graph.metadata_props if each.key != "sha256"}
    helper.set_model_props(graph, metadata)
    return graph


@pytest.fixture
def run(run_here: Run) -> Run:
    """Runs the command in the process of the test."""
    return lambda *arguments: run_here("agegender/prediction/export/__main__.py", *arguments)


def scale_initializer(graph: onnx.ModelProto, matches: Callable[[np.ndarray], bool], factor: float) -> onnx.ModelProto:
    """Returns a copy in which the first matching initializer is scaled by `factor`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    stored = next(each for each in copy.graph.initializer if matches(numpy_helper.to_array(each)))
    values = numpy_helper.to_array(stored)
    stored.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), stored.name))
    return copy


# Equal predictions


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        *({"age": age} for age in AGES),
        {"trunk": "residual", "age": {"name": "dldl", "decoding": "median"}},
        {"trunk": "torchvision", "in_channels": 1},
        {"age": {"name": "mae"}, "gender_output": "sigmoid", "calibrated": False},
        {"tasks": task_nodes("dldl") | THIRD},
        {"tasks": THIRD, "calibrated": False},
    ],
    ids=lambda options: "-".join(str(each) for each in options.values()),
)
def test_export_preserves_the_predictions_of_every_trunk_and_coding(
    options: dict[str, Any], pixels: np.ndarray, tmp_path: Path
) -> None:
    source = TorchBackend(save_network(tmp_path / "tiny.ckpt", **options), "cpu")
    if source.grayscale:
        pixels = pixels[..., :1]
    save_graph(build_graph(source), tmp_path / "tiny.onnx")
    exported = OnnxBackend(tmp_path / "tiny.onnx")
    assert exported.tasks == source.tasks
    for batch in (1, 3, 17):
        ours, theirs = exported(pixels[:batch]), source(pixels[:batch])
        assert all(values.shape == (batch,) and values.dtype == np.float64 for values in ours.values())
        check_parity(ours, theirs, source.tasks, "these")
    for info in source.tasks:
        first, *rest = (ours[name] for name in info.columns)
        assert np.ptp(first) > (1 if info.kind == "number" else 0.01), "all the same: this would prove nothing"
        if info.kind == "number":
            assert np.isnan(rest[1:]).all() != options.get("calibrated", True)


def test_export_predicts_as_its_checkpoint(exported: Path, checkpoint: Path, pixels: np.ndarray) -> None:
    ours, source = OnnxBackend(exported), TorchBackend(checkpoint, "cpu")
    assert ours.tasks == source.tasks
    found = ours(pixels)
    check_parity(found, source(pixels), source.tasks, "these")
    assert np.ptp(found["age"]) > 1 and np.ptp(found["p_female"]) > 0.01, "all the same: this would prove nothing"


def test_graph_takes_bytes_and_names_its_outputs(graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    (given,) = graph.graph.input
    assert given.name == "pixels" and given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sides = [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
    assert sides == ["batch", 3, 32, 32]
    assert [each.name for each in graph.graph.output] == ["age", "age_std", "age_low", "age_high", "p_female"]
    for answer in graph.graph.output:
        assert answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert [side.dim_param for side in answer.type.tensor_type.shape.dim] == ["batch"]
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 18)]


# Metadata


def test_metadata_describes_the_inputs_and_the_origin(graph: onnx.ModelProto) -> None:
    metadata = {each.key: each.value for each in graph.metadata_props}
    assert metadata.pop("license") == "trained on UTKFace: for non-commercial research only"
    assert metadata.pop("split_fingerprint") == "0123456789ab"
    assert metadata.pop("agegender_version") == agegender.__version__
    empty: dict[str, Any] = {"classes": [], "unit": "", "min_confidence": 0.5}
    columns = ["age", "age_std", "age_low", "age_high"]
    age = {"name": "age", "kind": "number", "label": "age", "columns": columns, "digits": [2, 2, None, None]}
    age |= empty | {"unit": "years"}
    gender = {"name": "gender", "kind": "binary", "label": "gender", "columns": ["p_female"], "digits": [4]}
    gender |= empty | {"classes": ["male", "female"]}
    assert {name: json.loads(value) for name, value in metadata.items()} == {
        "agegender_format": 4,
        "image_size": 32,
        "channels": 3,
        "mean": [0.5],
        "std": [0.25],
        "tasks": [age, gender],
        "trained_on_synthetic": False,
    }


def test_metadata_of_synthetic_training_claims_no_license(tmp_path: Path) -> None:
    mean = [0.485, 0.456, 0.406]
    drawn = TorchBackend(save_network(tmp_path / "drawn.ckpt", pictures="drawn", mean=mean), "cpu")
    metadata = onnx_graph.metadata(drawn)
    assert metadata["trained_on_synthetic"] == "true" and "license" not in metadata
    assert json.loads(metadata["mean"]) == mean


def test_graph_contains_no_path_of_the_machine(graph: onnx.ModelProto, checkpoint: Path) -> None:
    content = graph.SerializeToString()
    for folder in (ROOT, Path(torch.__file__).parent, checkpoint.parent):
        assert str(folder).encode() not in content
    assert b".py" not in content


# The command


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_export_checks_the_given_faces_and_writes_one_file(
    run: Run,
    graph: onnx.ModelProto,
    checkpoint: Path,
    faces: Path,
    tmp_path: Path,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: graph)
    monkeypatch.setattr(parity, "NARROWED", (100.0, 0.05))  # a tiny untrained network is sensitive to rounding
    out = tmp_path / "made" / "tiny.onnx"
    outcome = run(f"weights={checkpoint}", "format=onnx", f"out={out}", f"check={faces}", f"precision={precision}")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"checked on 120 of 120 images at {faces}\n" in outcome.out and outcome.out.endswith(f"{out}\n")
    assert list(out.parent.iterdir()) == [out]
    for line in outcome.out.splitlines()[3:-1]:
        assert " ms, " in line and " MB, differs by " in line
    precisions = [line.split()[0] for line in outcome.out.splitlines()[3:-1]]
    assert precisions == (["float32"] if precision == "float32" else ["float32", precision])
    kinds = {each.data_type for each in onnx.load(out).graph.initializer if len(each.dims) == 4}
    narrow = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}
    assert (narrow[precision] in kinds) if precision in narrow else kinds == {onnx.TensorProto.FLOAT}


@pytest.mark.slow
def test_quantize_weights_shrinks_the_file_and_keeps_the_predictions(pixels: np.ndarray, tmp_path: Path) -> None:
    source = TorchBackend(save_network(tmp_path / "wide.ckpt", channels=[16, 128, 128]), "cpu")
    model, theirs = build_graph(source), source(pixels)
    sizes, apart = {}, {}
    for precision in ("float32", "float16", "int8"):
        file = tmp_path / f"{precision}.onnx"
        onnx_graph.save_graph(model if precision == "float32" else onnx_graph.quantize_weights(model, precision), file)
        sizes[precision] = file.stat().st_size
        apart[precision] = np.abs(OnnxBackend(file)(pixels)["age"] - theirs["age"]).mean()
    assert sizes["float16"] < 0.6 * sizes["float32"] and sizes["int8"] < 0.35 * sizes["float32"]
    assert apart["float32"] < apart["float16"] < 0.05 and apart["float16"] < apart["int8"] < 1


def test_export_checks_synthetic_faces_by_default(
    run: Run, graph: onnx.ModelProto, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: graph)
    outcome = run(f"weights={checkpoint}", f"out={tmp_path / 'tiny.onnx'}")
    assert outcome.code == 0 and f"checked on {DRAWN} drawn faces" in outcome.out


# Exports that differ


@pytest.mark.parametrize(
    "matches",
    [
        lambda values: values.ndim == 4,  # weights of a convolution
        lambda values: (
            values.shape == (3,) and values.dtype == np.float32 and values.max() < 2
        ),  # std of the calibration
        lambda values: values.shape == (121,) and values.max() < 0,  # lower ends of the intervals
    ],
    ids=["weight", "error", "interval"],
)
def test_export_refuses_different_predictions_and_writes_nothing(
    matches: Callable[[np.ndarray], bool],
    run: Run,
    graph: onnx.ModelProto,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: scale_initializer(graph, matches, 1.05))
    outcome = run(f"weights={checkpoint}", f"out={tmp_path / 'tiny.onnx'}")
    outcome.assert_one_line_error("the outputs of ONNX Runtime and PyTorch differ")
    assert list(tmp_path.iterdir()) == []


def test_export_beyond_the_tolerance_keeps_an_older_file(
    run: Run, graph: onnx.ModelProto, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: graph)
    monkeypatch.setattr(parity, "TOLERANCE_DRAWN", (0.0, 0.0))
    (tmp_path / "tiny.onnx").write_text("older")
    run(f"weights={checkpoint}", f"out={tmp_path / 'tiny.onnx'}").assert_one_line_error()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_export_refuses_a_precision_that_moves_the_predictions(
    run: Run, graph: onnx.ModelProto, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: graph)
    monkeypatch.setattr(parity, "NARROWED", (1e-4, 1.0))
    monkeypatch.setattr(parity, "LARGE_NARROWED", 0.0)
    outcome = run(f"weights={checkpoint}", f"out={tmp_path / 'tiny.onnx'}", f"precision={precision}")
    outcome.assert_one_line_error(f"precision={precision} moves the predictions by", "check=<folder")
    assert list(tmp_path.iterdir()) == []


# User errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "out=model.onnx"),
        (("out=model.ckpt",), "ending in .onnx"),
        (("out=folder.onnx",), "ending in .onnx"),
        (("model.onnx",), "model.onnx is not a setting; write name=value"),
        (("out=a.onnx", "wieghts=default"), "wieghts is not known; did you mean weights?"),
        (("out=a.onnx", "precision=float8"), "precision='float8'"),
        (("out=a.onnx", "weights=missing.ckpt"), "no model at"),
        (("out=a.onnx", "weights=folder.onnx/b.onnx"), "b.onnx is an exported model"),
        (("out=a.onnx", "weights={checkpoint}", "check=missing"), "check=missing holds no image"),
        (("out=a.onnx", "weights={checkpoint}", "check=none*"), "check=none*"),
        (("out=a.onnx", "weights={checkpoint}", "check=folder.onnx"), "check=folder.onnx"),
    ],
)
def test_export_refuses_invalid_settings_in_one_line(
    arguments: tuple[str, ...],
    message: str,
    run: Run,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "folder.onnx" / "b.onnx").write_text("an export")
    outcome = run(*(argument.format(checkpoint=checkpoint) for argument in arguments))
    misspelled = "is not a setting" in message or "is not known" in message
    outcome.assert_one_line_error(message, code=EXIT_USAGE if misspelled else EXIT_ERROR)
    assert outcome.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_export_refuses_an_unwritable_path_in_one_line(
    run: Run, graph: onnx.ModelProto, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "build_graph", lambda source: graph)
    (tmp_path / "file").write_text("no folder")
    outcome = run(f"weights={checkpoint}", f"out={tmp_path / 'file' / 'tiny.onnx'}")
    outcome.assert_one_line_error("can't be written")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_export_names_the_extra_of_a_missing_package(
    package: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = run(f"out={tmp_path / 'tiny.onnx'}")
    outcome.assert_one_line_error(f"missing ({package})", "agegender[onnx]")


def test_export_reports_a_failure_of_the_exporter_in_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise torch.onnx.OnnxExporterError("Failed\nat length") from ValueError("no such operation")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(AgeGenderError, match=r"can't export .*tiny.ckpt \(no such operation\)"):
        export(str(tmp_path / "tiny.onnx"), str(checkpoint))


def test_export_help_lists_every_setting(run: Run) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert all(f"\n  {name}=" in outcome.out for name in ("out", "weights", "check", "precision", "format"))
