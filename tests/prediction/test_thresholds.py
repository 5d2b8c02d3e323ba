"""P(age >= T) on request: the same from the network, the predictor, every writer and an exported file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from helpers.made_networks import save_network
from helpers.made_predictions import made
from helpers.made_runs import AGE, GENDER
from helpers.nodes import AGES, gender_node
from pyarrow import parquet

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import OnnxBackend
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.export.onnx_graph import build_graph, save_graph
from agegender.prediction.export.parity import check_faces, check_parity, run_backend
from agegender.prediction.prediction import Prediction
from agegender.prediction.predictor import Predictor
from agegender.prediction.writers.table import print_table
from agegender.prediction.writers.writers import write_rows

Run = Callable[..., Outcome]
COLUMNS = ["p_age_from_18", "p_age_from_25"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds dldl.ckpt and, exported from it with thresholds, dldl.onnx. Read only."""
    folder = tmp_path_factory.mktemp("networks")
    source = TorchBackend(save_network(folder / "dldl.ckpt", pictures="drawn"), "cpu", thresholds=[18, 25])
    save_graph(build_graph(source), folder / "dldl.onnx")
    return folder


@pytest.fixture(scope="module")
def photo(faces: Path) -> Path:
    return min(faces.glob("*.jpg"))


def test_thresholds_of_a_label_distribution_are_its_sums(folder: Path) -> None:
    pixels = check_faces(None, 32, grayscale=False).pixels[:8]
    backend = TorchBackend(folder / "dldl.ckpt", "cpu", thresholds=[18, 25])
    found = backend(pixels)
    with torch.inference_mode():
        raw = backend.network(torch.from_numpy(pixels).permute(0, 3, 1, 2))["age"]
    for column, age in zip(COLUMNS, (18, 25), strict=True):
        assert found[column] == pytest.approx(raw.softmax(1)[:, age:].sum(1).numpy(), abs=1e-6)
    assert len({*found["p_age_from_18"].round(3)}) > 3  # the faces differ


@pytest.mark.parametrize("name", AGES)
def test_thresholds_change_no_other_column(name: str, photo: Path, tmp_path: Path) -> None:
    weights = save_network(tmp_path / "tiny.ckpt", age={"name": name})
    (plain,), (asked,) = (
        Predictor(weights, "cpu", detect="never", thresholds=given)(photo) for given in ([], [18, 25])
    )
    assert [name for name in asked.values if name not in plain.values] == COLUMNS
    assert {key: value for key, value in asked.values.items() if key not in COLUMNS} == plain.values
    assert 1 >= asked.values["p_age_from_18"] >= asked.values["p_age_from_25"] >= 0


def test_thresholds_stand_behind_the_interval_in_every_format(folder: Path, photo: Path, run_here: Run) -> None:
    arguments = [str(photo), f"weights={folder / 'dldl.ckpt'}", "detect=never", "thresholds=[18,25]"]
    for out in ("faces.csv", "faces.json", "faces.parquet"):
        outcome = run_here("predict.py", *arguments, f"out={out}")
        assert outcome.code == 0, outcome.err
    with Path("faces.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    (asked,) = Predictor(folder / "dldl.ckpt", "cpu", detect="never", thresholds=[18, 25])(photo)
    expected = {name: round(asked.values[name], 4) for name in COLUMNS}
    assert list(row)[10:13] == ["age_high", *COLUMNS]
    (as_json,) = json.loads(Path("faces.json").read_text())
    (as_parquet,) = parquet.read_table("faces.parquet").to_pylist()
    for found in (row, as_json, as_parquet):
        assert {name: float(found[name]) for name in COLUMNS} == expected


def test_thresholds_have_columns_of_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    task = replace(AGE, columns=(*AGE.columns, *COLUMNS), digits=(*AGE.digits, 4, 4))
    unknown: Prediction = made(tasks=(task, GENDER), age=31.0, p_age_from_18=0.876, p_female=0.1, gender="male")
    print_table([unknown], (task, GENDER))
    lines = [line for line in capsys.readouterr().out.splitlines() if "p(>= 18)" in line or "a.jpg" in line]
    assert "p(>= 18) ┃ p(>= 25) ┃ gender" in lines[0]
    assert [cell.strip() for cell in lines[1].split("│")[2:6]] == ["31", "88 %", "", "male 90 %"]


def test_thresholds_of_an_exported_file_equal_those_of_pytorch(folder: Path) -> None:
    pixels = check_faces(None, 32, grayscale=False).pixels
    theirs = TorchBackend(folder / "dldl.ckpt", "cpu", thresholds=[18, 25])
    ours = OnnxBackend(folder / "dldl.onnx", thresholds=[25])
    assert ours.tasks == theirs.tasks
    expected = run_backend(theirs, pixels)
    check_parity(run_backend(ours, pixels), expected, ours.tasks, "drawn faces")
    moved = {name: values + 0.01 * (name == COLUMNS[0]) for name, values in expected.items()}
    with pytest.raises(AgeGenderError, match="p_age_from_18 by 1"):
        check_parity(moved, expected, ours.tasks, "drawn faces")


def test_thresholds_that_a_file_lacks_are_refused_with_the_remedy(folder: Path, photo: Path, run_here: Run) -> None:
    arguments = [str(photo), f"weights={folder / 'dldl.onnx'}", "backend=onnx", "detect=never", "thresholds=[18,21]"]
    outcome = run_here("predict.py", *arguments)
    assert outcome.code == 1
    assert "has no output for thresholds=[21]: export it again with thresholds=[18,21]" in outcome.err


@pytest.mark.parametrize("given", [[0], [18, 18]])
def test_thresholds_out_of_range_are_refused(given: list[int], folder: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"thresholds=\["):
        Predictor(folder / "dldl.ckpt", "cpu", detect="never", thresholds=given)


def test_thresholds_of_weights_without_an_age_are_refused(tmp_path: Path) -> None:
    weights = save_network(tmp_path / "gender.ckpt", tasks={"gender": gender_node()})
    with pytest.raises(AgeGenderError, match="needs a task age in whole years"):
        Predictor(weights, "cpu", detect="never", thresholds=[18])


def test_thresholds_without_a_calibration_are_unknown_for_a_regression(photo: Path, tmp_path: Path) -> None:
    weights = save_network(tmp_path / "tiny.ckpt", age={"name": "mae"}, calibrated=False)
    predictor = Predictor(weights, "cpu", detect="never", thresholds=[18])
    (found,) = predictor(photo)
    assert found.error is None and found.values["p_age_from_18"] is None
    write_rows(tmp_path / "faces.csv", [], predictor.tasks)
    assert "age_high,p_age_from_18," in (tmp_path / "faces.csv").read_text()
    assert np.isnan(run_backend(predictor.network, check_faces(None, 32, False).pixels[:2])["p_age_from_18"]).all()
