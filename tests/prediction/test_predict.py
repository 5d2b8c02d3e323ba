"""predict.py as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Outcome, run_script
from helpers.made_predictions import TWO

from agegender.prediction.predict import predict
from agegender.prediction.prediction import columns_of
from agegender.runs.checkpoint import BUNDLED_WEIGHTS

Run = Callable[..., Outcome]

NAMES = (
    "plain.jpg",
    "holiday (1).jpg",
    "a, b.jpg",
    "a=b.jpg",
    "o'neill.jpg",
    '"quoted".jpg',
    "photo[1].jpg",
    "[1].jpg",
    "${x}.jpg",
    "\\${x}'.jpg",
    "日本.jpg",
    "back\\",
    "null",
    "+plus.jpg",
    "~tilde.jpg",
)


@pytest.fixture(scope="module")
def pictures(faces: Path) -> list[Path]:
    return sorted(faces.glob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def weights(trained_run: Path) -> str:
    return f"weights={trained_run}"


@pytest.fixture(scope="module")
def expected(pictures: list[Path], trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of the first three pictures, without their paths."""
    out = tmp_path_factory.mktemp("expected") / "faces.json"
    assert predict([*map(str, pictures[:3])], str(trained_run), "never", str(out))
    rows = rows_of(out)
    assert [row.pop("path") for row in rows] == list(map(str, pictures[:3]))
    return rows


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def everything_below(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# Predictions


@pytest.mark.slow
def test_predict_keeps_file_names_of_every_kind(pictures: list[Path], weights: str, tmp_path: Path) -> None:
    """In a subprocess and without `img=`, as after a shell's globbing."""
    for name in NAMES:
        shutil.copy(pictures[0], tmp_path / name)
    outcome = run_script("predict.py", "detect=never", *NAMES, weights, "out=faces.json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "faces.json")
    assert [row["path"] for row in rows] == list(NAMES)
    assert len({row["age"] for row in rows}) == 1 and rows[0]["age"] is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ("img=[a.jpg,b.jpg,sub/c.jpg]",),
        ("img=a.jpg,b.jpg,sub/c.jpg",),
        ("a.jpg", "b.jpg", "sub/c.jpg"),
        ("img=*.jpg", "sub/*.jpg"),
        ("img=**/*.jpg",),
    ],
)
def test_predict_accepts_files_lists_and_globs_alike(
    arguments: tuple[str, ...],
    run_here: Run,
    pictures: list[Path],
    expected: list[dict[str, Any]],
    weights: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "sub").mkdir()
    for name, picture in zip(("a.jpg", "b.jpg", "sub/c.jpg"), pictures, strict=False):
        shutil.copy(picture, tmp_path / name)
    outcome = run_here("predict.py", "detect=never", *arguments, weights, "out=faces.json")
    assert outcome.code == 0, outcome.err
    rows = rows_of(tmp_path / "faces.json")
    assert [row.pop("path") for row in rows] == ["a.jpg", "b.jpg", "sub/c.jpg"]
    assert rows == expected and len({row["age"] for row in rows}) == 3


def test_predict_reads_the_images_of_a_folder_recursively(
    run_here: Run, pictures: list[Path], weights: str, tmp_path: Path
) -> None:
    (tmp_path / "album" / "sub").mkdir(parents=True)
    for name in ("b.jpg", "sub/a.jpg"):
        shutil.copy(pictures[0], tmp_path / "album" / name)
    (tmp_path / "album" / "notes.txt").write_text("hello")
    outcome = run_here("predict.py", "detect=never", "img=album", weights, "out=faces.json")
    assert outcome.code == 0, outcome.err
    assert [row["path"] for row in rows_of(tmp_path / "faces.json")] == ["album/b.jpg", "album/sub/a.jpg"]


def test_predict_agrees_with_the_predictions_of_the_run_in_csv_and_json(
    run_here: Run, trained_run: Path, weights: str, tmp_path: Path
) -> None:
    with (trained_run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    paths = [row["path"] for row in expected]
    assert run_here("predict.py", "detect=never", *paths, weights, "out=faces.json").code == 0
    assert run_here("predict.py", "detect=never", *paths, weights, "out=faces.csv", "batch_size=5").code == 0
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        from_csv = list(csv.DictReader(file))
    from_json = rows_of(tmp_path / "faces.json")
    assert len(from_csv) == len(from_json) == len(expected) >= 20
    for ours, same, theirs in zip(from_csv, from_json, expected, strict=True):
        assert list(ours) == list(same) == list(columns_of(TWO))
        assert ours["path"] == same["path"] == theirs["path"]
        assert float(ours["age"]) == pytest.approx(same["age"], abs=0.0101)  # rounding depends on the batch size
        assert same["age"] == pytest.approx(float(theirs["age_pred"]), abs=0.0056)
        assert same["age_std"] == pytest.approx(float(theirs["age_std"]), abs=0.0056)
        assert same["age_low"] == pytest.approx(
            float(theirs["age_low"]), abs=1
        )  # rounding can move a bound by one year
        assert same["age_high"] == pytest.approx(float(theirs["age_high"]), abs=1)
        assert same["p_female"] == pytest.approx(float(theirs["p_female"]), abs=0.000056)
        assert ours["gender"] == same["gender"] == ("female" if float(theirs["p_female"]) > 0.5 else "male")
        assert ours["error"] == "" and same["error"] is None


def test_predict_prints_a_table_without_out(run_here: Run, pictures: list[Path], weights: str, tmp_path: Path) -> None:
    shutil.copy(pictures[0], tmp_path / "face.jpg")
    outcome = run_here("predict.py", "detect=never", "img=face.jpg", weights)
    assert outcome.code == 0
    assert "face.jpg" in outcome.out and "weights:" not in outcome.out


# Files that can't be read


def test_predict_fails_unreadable_files_alone_and_exits_with_1(
    run_here: Run, pictures: list[Path], weights: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "truncated.jpg").write_bytes(pictures[0].read_bytes()[:-300])
    shutil.copy(pictures[0], tmp_path / "good.jpg")
    shutil.copy(pictures[1], tmp_path / "fine.jpg")
    names = ["good.jpg", "empty.jpg", "text.jpg", "truncated.jpg", "missing.jpg", "photo[9].jpg", "fine.jpg"]
    given = [f"img={name}" for name in names]
    for form in ("faces.json", "faces.csv"):
        outcome = run_here("predict.py", "detect=never", *given, weights, f"out={form}")
        assert outcome.code == 1
        assert "5 of 7 images could not be answered" in outcome.err and "Traceback" not in outcome.err
    rows = rows_of(tmp_path / "faces.json")
    assert [row["path"] for row in rows] == names
    for row in rows:
        answers = [row["age"], row["p_female"], row["gender"]]
        if row["path"] in ("good.jpg", "fine.jpg"):
            assert None not in answers and row["error"] is None
        else:
            assert answers == [None] * 3 and row["error"]
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        assert [row["error"] or None for row in csv.DictReader(file)] == [row["error"] for row in rows]
    outcome = run_here("predict.py", "detect=never", *given, weights)
    assert outcome.code == 1
    assert all(name in outcome.out for name in names) and "no such file" in outcome.out


@pytest.mark.parametrize("asked", ["img=empty", "img=[]", "img=null"])
def test_predict_reports_in_one_line_that_no_image_was_found(
    asked: str, run_here: Run, weights: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    outcome = run_here("predict.py", "detect=never", asked, weights)
    assert outcome.code == 1
    if asked == "img=null":  # null is a file name here
        assert "no such file" in outcome.out
    else:
        outcome.assert_one_line_error("img=")
        assert outcome.out == ""


def test_predict_without_images_shows_the_usage_in_one_line(run_here: Run) -> None:
    outcome = run_here("predict.py")
    outcome.assert_one_line_error("img=face.jpg")
    assert outcome.out == ""


# Weights


def test_predict_needs_nothing_but_the_checkpoint(
    run_here: Run, trained_run: Path, pictures: list[Path], weights: str, tmp_path: Path
) -> None:
    alone = tmp_path / "elsewhere" / "my model.ckpt"
    alone.parent.mkdir()
    shutil.copy(trained_run / "checkpoints" / "best.ckpt", alone)
    images = list(map(str, pictures))
    assert run_here("predict.py", "detect=never", *images, weights, "out=run.json").code == 0
    assert (
        run_here("predict.py", "detect=never", *images, "weights=elsewhere/my model.ckpt", "out=alone.json").code == 0
    )
    assert rows_of(tmp_path / "run.json") == rows_of(tmp_path / "alone.json")


def test_predict_weights_logs_is_the_newest_best_checkpoint(
    run_here: Run, trained_run: Path, pictures: list[Path], tmp_path: Path
) -> None:
    ages = {"zebra/2030-01-01": 300, "apple/sweep_2026/0": 100, "mid/2029-01-01": 200}
    now = (trained_run / "metrics.json").stat().st_mtime
    for run, age in ages.items():
        folder = tmp_path / "logs" / run / "checkpoints"
        folder.mkdir(parents=True)
        for name in ("best.ckpt", "last.ckpt"):
            shutil.copy(trained_run / "checkpoints" / name, folder / name)
            os.utime(folder / name, (now - age - (50 if name == "best.ckpt" else -900),) * 2)
    outcome = run_here("predict.py", "detect=never", str(pictures[0]), "weights=logs")
    assert outcome.code == 0, outcome.err
    assert "weights: logs/apple/sweep_2026/0/checkpoints/best.ckpt\n" in outcome.err


def test_predict_without_a_trained_run_shows_a_remedy_in_one_line(
    run_here: Run, pictures: list[Path], tmp_path: Path
) -> None:
    outcome = run_here("predict.py", "detect=never", str(pictures[0]), "weights=logs")
    outcome.assert_one_line_error(str(tmp_path / "logs"), "weights=default")
    assert outcome.out == ""


def test_predict_uses_the_bundled_weights_by_default(run_here: Run, pictures: list[Path], tmp_path: Path) -> None:
    images = list(map(str, pictures))
    outcome = run_here("predict.py", "detect=never", *images, "out=unset.json")
    assert outcome.code == 0, outcome.err
    assert f"weights: {BUNDLED_WEIGHTS['default']}\n" in outcome.err and "drawn faces" not in outcome.err
    assert run_here("predict.py", "detect=never", *images, "weights=default", "out=set.json").code == 0
    assert rows_of(tmp_path / "unset.json") == rows_of(tmp_path / "set.json")
    assert all(row["age_std"] > 0 and row["age_low"] <= row["age_high"] for row in rows_of(tmp_path / "set.json"))


class Stranger:
    """A class that a safe loader must not instantiate."""


@pytest.mark.parametrize("kind", ["truncated", "empty", "foreign", "unsafe", "missing", "folder"])
def test_predict_refuses_an_invalid_checkpoint_in_one_line(
    kind: str, run_here: Run, trained_run: Path, pictures: list[Path], tmp_path: Path
) -> None:
    good = (trained_run / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "bad.ckpt"
    contents = {"truncated": good[:-100], "empty": b""}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "foreign":
        torch.save({"state_dict": {}}, path)
    elif kind == "unsafe":
        torch.save(Stranger(), path)
    elif kind == "folder":
        path.mkdir()
    outcome = run_here("predict.py", "detect=never", str(pictures[0]), "weights=bad.ckpt")
    outcome.assert_one_line_error("bad.ckpt")
    assert outcome.out == ""


# Invalid settings


@pytest.mark.parametrize(
    ("argument", "code", "message"),
    [
        ("bach_size=3", 2, "did you mean batch_size?"),
        ("batch_size=many", 1, "batch_size='many' has the wrong type"),
        ("batch_size=0", 1, "batch_size=0 must be at least 1"),
        ("min_confidence=0.4", 1, "min_confidence=0.4 must lie between 0.5 (never unsure) and 1, or be null"),
        ("weights=3", 1, "no model at"),
        ("img=[1]", 1, "has the wrong type"),
        ("+extra=1", 1, "extra is not known"),
        ("device=nowhere", 1, "device=nowhere can't be used here"),
        ("out=faces.txt", 1, "must end in .csv, .json, .jsonl, .parquet, or be - for a pipe"),
        ("out=missing/faces.csv", 1, "the folder missing does not exist"),
        ("img=[unclosed", 2, "error: "),
    ],
)
def test_predict_refuses_invalid_settings_in_one_line(
    argument: str, code: int, message: str, run_here: Run, pictures: list[Path], weights: str, tmp_path: Path
) -> None:
    image = () if argument.startswith("img=") else (f"img={pictures[0]}",)
    outcome = run_here("predict.py", "detect=never", *image, weights, argument)
    outcome.assert_one_line_error(message, code=code)
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_predict_refuses_a_missing_gpu_in_one_line(run_here: Run, pictures: list[Path], weights: str) -> None:
    outcome = run_here("predict.py", "detect=never", str(pictures[0]), weights, "device=cuda")
    outcome.assert_one_line_error("device=cuda can't be used here", "device=cpu")
    assert outcome.out == ""


@pytest.mark.parametrize("argument", ["out=faces.txt", "out=missing/faces.csv", "batch_size=0"])
def test_predict_checks_settings_before_images_and_weights(argument: str, run_here: Run) -> None:
    outcome = run_here("predict.py", "detect=never", "img=nowhere/*.jpg", "weights=nowhere.ckpt", argument)
    assert argument.split("=")[0] in outcome.err and "nowhere" not in outcome.err


# Side effects and imports


@pytest.mark.parametrize("end", ["answered", "failed", "refused"])
def test_predict_writes_no_file_but_out(
    end: str, run_here: Run, pictures: list[Path], weights: str, trained_run: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures[0], tmp_path / "face.jpg")
    before = everything_below(tmp_path) | everything_below(trained_run)
    arguments = {"answered": "img=face.jpg", "failed": "img=missing.jpg", "refused": "bach_size=3"}[end]
    assert (run_here("predict.py", "detect=never", arguments, weights).code == 0) == (end == "answered")
    assert everything_below(tmp_path) | everything_below(trained_run) == before
    run_here("predict.py", "detect=never", arguments, weights, "out=faces.csv")
    after = set(everything_below(tmp_path)) | set(everything_below(trained_run))
    assert after - set(before) == (set() if end == "refused" else {tmp_path / "faces.csv"})


def test_predict_keeps_an_older_output_when_it_can_not_start(
    run_here: Run, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "faces.csv").write_text("old")
    assert run_here("predict.py", "detect=never", str(pictures[0]), "weights=missing.ckpt", "out=faces.csv").code == 1
    assert (tmp_path / "faces.csv").read_text() == "old"


PROBE = """
import json, runpy, sys
script, sys.argv = sys.argv[1], sys.argv[1:]
code = 0
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    code = end.code or 0
print(json.dumps({"code": code, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def imported_by(*arguments: str, cwd: Path) -> tuple[int, set[str]]:
    command = [sys.executable, "-c", PROBE, str(ROOT / "predict.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    return report["code"], set(report["modules"])


def test_predict_imports_no_training_library(pictures: list[Path], weights: str, tmp_path: Path) -> None:
    code, modules = imported_by(f"img={pictures[0]}", weights, cwd=tmp_path)
    assert code == 0 and "torch" in modules
    assert not modules & {"lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "tensorboard"}
    assert not modules & {"torchvision", "matplotlib", "kagglehub", "pandas", "scipy"}  # slow to import
    assert list(tmp_path.iterdir()) == []


def test_predict_refuses_a_misspelled_key_without_importing_torch(tmp_path: Path) -> None:
    code, modules = imported_by("img=face.jpg", "bach_size=3", cwd=tmp_path)
    assert code == 2 and "torch" not in modules


def test_predict_warns_of_weights_trained_on_synthetic_faces(run_here: Run, trained_run: Path, faces: Path) -> None:
    outcome = run_here(
        "predict.py", "detect=never", f"img={next(iter(sorted(faces.iterdir())))}", f"weights={trained_run}"
    )
    assert outcome.code == 0
    assert "trained on drawn faces: the predictions say nothing about real people" in outcome.err


def test_predict_weights_of_a_folder_of_runs_is_its_newest_best_checkpoint(
    run_here: Run, trained_run: Path, faces: Path, tmp_path: Path
) -> None:
    for age, name in ((200, "old"), (100, "new")):
        shutil.copytree(trained_run, tmp_path / "logs" / "mine" / name)
        when = time.time() - age
        os.utime(tmp_path / "logs" / "mine" / name / "checkpoints" / "best.ckpt", (when, when))
    outcome = run_here("predict.py", "detect=never", f"img={next(iter(sorted(faces.iterdir())))}", "weights=logs/mine")
    assert outcome.code == 0
    assert str(Path("mine") / "new" / "checkpoints" / "best.ckpt") in outcome.err
