"""Checkpoints are found, describe themselves and load safely; any other file is refused in one line."""

from __future__ import annotations

import ast
import operator
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome, metrics_of
from helpers.nodes import task_nodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agegender
from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.training.module import AgeGenderModule


class Payload:
    """Creates a folder when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_checkpoint_loads_with_weights_only(trained_run: Path, name: str) -> None:
    checkpoint = torch.load(trained_run / "checkpoints" / name, weights_only=True)
    assert {"state_dict", "optimizer_states", "loops", "hyper_parameters", "agegender"} <= set(checkpoint)


def test_checkpoint_describes_its_network_tasks_and_split(trained_run: Path) -> None:
    described = load_checkpoint(trained_run / "checkpoints" / "best.ckpt")["agegender"]
    network = described["network"]
    assert (network["image_size"], network["in_channels"]) == (32, 1)
    assert (network["mean"], network["std"]) == ([0.5], [0.25])
    assert network["tasks"] == task_nodes("mae", output="linear")
    assert [info["name"] for info in described["tasks"]] == ["age", "gender"]
    assert described["tasks"][1]["classes"] == ["male", "female"] and described["tasks"][0]["unit"] == "years"
    assert described["version"] == agegender.__version__
    assert described["split"] == {
        "fingerprint": metrics_of(trained_run)["split_fingerprint"],
        "protocol": "clean",
        "duplicates": "near",
        "split": "content",
        "split_seed": 0,
        "test_fraction": 0.2,
        "val_fraction": 0.1,
        "fold": None,
        "folds": None,
        "age_range": [0, 120],
        "split_file": None,
        "table": None,
        "limit": None,
        "leave_out": None,
        "pictures": "drawn",
    }


def test_checkpoint_alone_rebuilds_the_network(trained_run: Path) -> None:
    checkpoint = load_checkpoint(trained_run / "checkpoints" / "best.ckpt")
    network = MultiTaskNet(**checkpoint["agegender"]["network"])
    network.load_state_dict(checkpoint["network"])
    assert all(torch.isfinite(raw).all() for raw in network.eval()(torch.zeros(1, 1, 32, 32)).values())
    assert all(task.calibration is not None for _, task in network.each_task())


def test_load_checkpoint_names_a_file_of_an_older_version(trained_run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    del checkpoint["agegender"]["network"]["tasks"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(AgeGenderError, match=r"old\.ckpt is of an older version"):
        load_checkpoint(tmp_path / "old.ckpt")


def test_find_checkpoint_prefers_the_best_checkpoint_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").touch()
    assert find_checkpoint(tmp_path / "run") == folder / "last.ckpt"
    (folder / "best.ckpt").touch()
    assert find_checkpoint(tmp_path / "run") == folder / "best.ckpt"
    assert find_checkpoint(str(folder / "last.ckpt")) == folder / "last.ckpt"


def test_find_checkpoint_takes_the_newest_best_checkpoint_below_a_folder(tmp_path: Path) -> None:
    for age, name in ((30, "a/1"), (10, "b/sweep_1/0"), (20, "c/2")):
        best = tmp_path / name / "checkpoints" / "best.ckpt"
        best.parent.mkdir(parents=True)
        best.touch()
        os.utime(best, (1e9 - age, 1e9 - age))
    (tmp_path / "c/2/checkpoints/last.ckpt").touch()
    assert find_checkpoint(tmp_path) == tmp_path / "b/sweep_1/0/checkpoints/best.ckpt"


@pytest.mark.parametrize("given_", ["nowhere", "nowhere/best.ckpt", "."])
def test_find_checkpoint_refuses_a_missing_path_with_a_remedy(given_: str, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"give (a run's folder|weights=)") as refused:
        find_checkpoint(tmp_path / given_)
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrapped", [True, False])
def test_load_checkpoint_runs_no_code_in_a_file(tmp_path: Path, protocol: int, wrapped: bool) -> None:
    trap, harm = tmp_path / "trap.ckpt", tmp_path / "harm"
    content = {"agegender": {}, "state_dict": Payload(harm)}
    if wrapped:
        torch.save(content, trap, pickle_protocol=protocol)
    else:
        trap.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(AgeGenderError) as refused:
        load_checkpoint(trap)
    assert not harm.exists()
    assert str(trap) in str(refused.value) and "\n" not in str(refused.value)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_load_checkpoint_refuses_a_truncated_file(trained_run: Path, tmp_path: Path, share: float) -> None:
    whole = (trained_run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(AgeGenderError, match=r"cut\.ckpt") as refused:
        load_checkpoint(tmp_path / "cut.ckpt")
    assert "\n" not in str(refused.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), end=st.booleans(), bit=st.integers(0, 7))
def test_load_checkpoint_with_a_flipped_bit_gives_the_same_weights_or_is_refused(
    trained_run: Path, tmp_path: Path, where: float, end: bool, bit: int
) -> None:
    """Anywhere in the file, or, which decides about parts, in the directory at its end."""
    whole = trained_run / "checkpoints" / "best.ckpt"
    content = bytearray(whole.read_bytes())
    directory = content.find(b"PK\x01\x02")
    first = directory if end else 0
    content[first + int(where * (len(content) - 1 - first))] ^= 1 << bit
    (tmp_path / "flipped.ckpt").write_bytes(content)
    message = ""
    try:
        found = load_checkpoint(tmp_path / "flipped.ckpt")
    except AgeGenderError as refused:
        message = str(refused)
    if message:
        assert "flipped.ckpt" in message and "\n" not in message
        return
    expected = load_checkpoint(whole)
    assert found["agegender"] == expected["agegender"] and found["network"].keys() == expected["network"].keys()
    for name, value in expected["network"].items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(found["network"][name], value)


@pytest.mark.parametrize(
    ("record", "byte"), [(b"PK\x01\x02", 38), (b"PK\x06\x07", 4)], ids=["a part is a folder", "several disks"]
)
def test_load_checkpoint_refuses_a_directory_that_pytorch_reads_otherwise(
    trained_run: Path, tmp_path: Path, record: bytes, byte: int
) -> None:
    content = bytearray((trained_run / "checkpoints" / "best.ckpt").read_bytes())
    content[content.rfind(record) + byte] ^= 0x10
    (tmp_path / "flipped.ckpt").write_bytes(content)
    with pytest.raises(AgeGenderError, match=r"flipped\.ckpt is damaged") as refused:
        load_checkpoint(tmp_path / "flipped.ckpt")
    assert "\n" not in str(refused.value)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_load_checkpoint_refuses_arbitrary_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "any.ckpt").write_bytes(content)
    with pytest.raises(AgeGenderError, match=r"any\.ckpt") as refused:
        load_checkpoint(tmp_path / "any.ckpt")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {}, "epoch": 3}, {"layer.weight": torch.zeros(2)}, [1, 2], torch.zeros(2), None],
    ids=["lightning", "state dict", "list", "tensor", "none"],
)
def test_load_checkpoint_refuses_a_foreign_checkpoint(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(AgeGenderError, match=r"foreign\.ckpt is not an agegender checkpoint"):
        load_checkpoint(tmp_path / "foreign.ckpt")


@pytest.mark.parametrize(
    ("kind", "fit"), [("malicious", "true"), ("malicious", "false"), ("truncated", "true"), ("missing", "false")]
)
def test_train_refuses_invalid_weights_before_it_reads_data(
    run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path, kind: str, fit: str
) -> None:
    trap = tmp_path / "given.ckpt"
    if kind == "malicious":
        torch.save({"agegender": {}, "state_dict": Payload(tmp_path / "harm")}, trap)
    elif kind == "truncated":
        shutil.copyfile(trained_run / "checkpoints" / "best.ckpt", trap)
        os.truncate(trap, trap.stat().st_size // 2)
    outcome = run_here("train.py", *TINY, f"weights={trap}", f"fit={fit}", "data.cache_dir=untouched")
    outcome.assert_one_line_error(str(trap))
    assert not (tmp_path / "harm").exists() and not (tmp_path / "untouched").exists()


ENTRIES = {
    "resume": ("train.py", "resume=run"),
    "predict": ("predict.py", "img=face.jpg", "detect=never", "weights=run"),
    "page": ("agegender/web/__main__.py", "port=0", "detect=never", "weights=run"),
    "export": ("agegender/prediction/export/__main__.py", "weights=run", "out=model.onnx"),
    "onnx": ("predict.py", "img=face.jpg", "detect=never", "backend=onnx", "weights=run/checkpoints/best.ckpt"),
    "pack": ("agegender/weights/__main__.py", "run=run", "out=small.ckpt"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_commands_run_no_code_in_a_checkpoint(
    run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path, entry: str
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    for trap in (tmp_path / "run" / "checkpoints").iterdir():
        torch.save({"agegender": {}, "state_dict": Payload(tmp_path / "harm")}, trap)
    outcome = run_here(*ENTRIES[entry])
    assert outcome.code == 1, outcome.err
    *warnings, error = outcome.err.splitlines()
    assert error.startswith("error: ") and ".ckpt" in error
    assert all(warning.startswith("warning: ") and "skipped" in warning for warning in warnings)
    assert not (tmp_path / "harm").exists()


def test_checkpoint_can_not_name_its_instantiator(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2026-58659: Lightning imported the name in `_instantiator`, even with `weights_only`."""
    (tmp_path / "harmful.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'harm')!r})\ndef make(*_): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["_instantiator"] = "harmful.make"
    torch.save(checkpoint, tmp_path / "trap.ckpt")
    with pytest.raises(AgeGenderError, match=r"unknown hyperparameters \(_instantiator\)"):
        AgeGenderModule.load_from_checkpoint(tmp_path / "trap.ckpt", weights_only=True, map_location="cpu")
    assert not (tmp_path / "harm").exists()


UNSAFE = (
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "torch.hub.load",
    "eval",
    "exec",
)
SAFE_WITH = {"torch.load": "weights_only", "np.load": "allow_pickle"}  # True and False
GUARDS = ("weights_only", "allow_pickle", "ckpt_path")
SAFE_METHODS = ("load_from_checkpoint", "load_state_dict_from_url", "get_state_dict")


def calls() -> list[tuple[str, str, list[ast.keyword]]]:
    """Returns the location, the name and the keyword arguments of every call of a name in the repository's code."""
    files = [*(ROOT / "agegender").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *ROOT.glob("*.py")]
    return [
        (
            f"{file.relative_to(ROOT)}:{node.lineno}",
            ast.unparse(node.func),
            node.keywords,
        )
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    ]


def test_package_calls_safe_loaders_only() -> None:
    """Covers code that the tests of the commands don't reach."""
    found = calls()
    assert {"torch.load", "np.load"} <= {name for _, name, _ in found}
    for where, name, keywords in found:
        assert name not in UNSAFE, where
        given_ = {each.arg or "**": ast.unparse(each.value) for each in keywords if each.arg in GUARDS}
        if name in SAFE_WITH or name.rpartition(".")[2] in SAFE_METHODS:
            keyword = SAFE_WITH.get(name, "weights_only")
            assert given_.get(keyword) == str(keyword == "weights_only"), f"{where}: {name} without {keyword}"
        if "ckpt_path" in given_:  # Lightning's fit, validate and test
            assert given_.get("weights_only", "").startswith("True"), f"{where}: {name} without weights_only"
