"""A stopped run keeps its predictions in `<out>.partial`; `resume=true` ends in the bytes of one run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Outcome, room_for
from helpers.made_predictions import TWO, made
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.prediction.images.sources import file_stamp
from agegender.prediction.predict import predict
from agegender.prediction.predictor import ImageResult
from agegender.prediction.writers.partial_results import PartialResults

Run = Callable[..., Outcome]
FORMS = ("csv", "json", "jsonl", "parquet")
BAD_NAME = os.fsdecode(b"not utf-8 \xff.jpg")
DONE = ("a.jpg", "b.jpg", "a.jpg", BAD_NAME, "missing.jpg", "日本.jpg")  # one name twice, one file missing
NAMES = (*DONE, "y.jpg", "b.jpg", "z.jpg")
ORIGIN = {"weights": "small.ckpt", "frame_interval": 1.0}


@dataclass(frozen=True)
class Stopped:
    """The state left by a run that was killed before its last images."""

    folder: Path
    weights: str
    partial: bytes
    whole: dict[str, bytes]  # output of an uninterrupted run, by format

    def begin_in(self, folder: Path, out: str = "faces.csv", length: int | None = None) -> None:
        for name in {*NAMES} - {"missing.jpg"}:
            shutil.copy2(self.folder / name, folder / name)
        (folder / f"{out}.partial").write_bytes(self.partial[:length])

    def arguments(self, out: str = "faces.csv") -> tuple[str, ...]:
        return (
            *(f"img={name}" for name in NAMES),
            "detect=never",
            "batch_size=1",
            f"weights={self.weights}",
            f"out={out}",
        )

    def go_on(self, folder: Path, form: str = "csv") -> bytes:
        with contextlib.chdir(folder):
            out = f"faces.{form}"
            assert not predict([*NAMES], self.weights, "never", out, resume=True, batch_size=1)  # one is missing
        assert not (folder / f"{out}.partial").exists()
        return (folder / out).read_bytes()


def stop_half_way(folder: Path, weights: str, signal_number: int) -> tuple[int, str]:
    """Runs predict.py until it waits for the next name on standard input, and signals it."""
    command = [sys.executable, str(ROOT / "predict.py"), "img=-", "detect=never", "batch_size=1", f"weights={weights}"]
    partial, until = folder / "faces.csv.partial", time.monotonic() + 120
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "out=faces.csv"], cwd=folder, **pipes) as run:  # type: ignore[call-overload]
        run.stdin.write(b"".join(os.fsencode(name) + b"\n" for name in DONE))
        run.stdin.flush()
        while not (partial.exists() and partial.read_bytes().count(b"\n") == 1 + len(DONE)):
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        run.send_signal(signal_number)
        stderr: bytes = run.communicate(timeout=60)[1]
    return run.returncode, stderr.decode()


@pytest.fixture(scope="module")
def stopped(trained_run: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder, weights = tmp_path_factory.mktemp("stopped"), str(trained_run / "checkpoints" / "best.ckpt")
    for picture, name in zip(sorted(faces.glob("*.jpg")), {*NAMES} - {"missing.jpg"}, strict=False):
        shutil.copy(picture, folder / name)
    code, _ = stop_half_way(folder, weights, signal.SIGKILL)
    assert code == -signal.SIGKILL and not (folder / "faces.csv").exists()
    partial = (folder / "faces.csv.partial").read_bytes()
    whole = {}
    with contextlib.chdir(folder):
        for form in FORMS:
            assert not predict([*NAMES], weights, "never", f"whole.{form}", batch_size=1)
            whole[form] = (folder / f"whole.{form}").read_bytes()
    return Stopped(folder, weights, partial, whole)


def error_line(outcome: Outcome) -> str:
    """Asserts a refusal after the lines on the weights, and returns the error line."""
    *before, line = outcome.err.splitlines()
    assert outcome.code == 1 and outcome.out == "" and line.startswith("error: "), outcome
    assert all(other.startswith(("weights: ", "warning: ")) for other in before), outcome
    return line


def test_resumed_run_writes_the_bytes_of_an_uninterrupted_one(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    for name in {*DONE} - {"missing.jpg", "b.jpg"}:
        (tmp_path / name).unlink()  # predicted images are not read again
    outcome = run_here("predict.py", *stopped.arguments(), "resume=true")
    assert outcome.code == 1 and "Traceback" not in outcome.err  # one is missing
    assert f"{len(DONE)} images are done already\n" in outcome.err
    assert f"{len(NAMES)} images in faces.csv\n1 of {len(NAMES)} images could not be answered" in outcome.err
    assert (tmp_path / "faces.csv").read_bytes() == stopped.whole["csv"]
    assert not (tmp_path / "faces.csv.partial").exists()


@pytest.mark.parametrize("form", FORMS[1:])
def test_resumed_run_writes_the_bytes_of_every_format(form: str, stopped: Stopped, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path, f"faces.{form}")
    assert stopped.go_on(tmp_path, form) == stopped.whole[form]


@pytest.mark.slow
def test_run_interrupted_by_ctrl_c_can_be_resumed(stopped: Stopped, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    (tmp_path / "faces.csv.partial").unlink()
    code, stderr = stop_half_way(tmp_path, stopped.weights, signal.SIGINT)
    assert code == 130 and stderr.splitlines()[-1] == "interrupted" and "Traceback" not in stderr, stderr
    assert stopped.go_on(tmp_path) == stopped.whole["csv"]


@settings(max_examples=5)
@example(length=0)
@example(length=-1)
@example(length=5)
@given(length=st.integers(0, 3000))
def test_resume_survives_a_partial_file_torn_anywhere(stopped: Stopped, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stopped.begin_in(Path(folder), length=length)
        assert stopped.go_on(Path(folder)) == stopped.whole["csv"]


def test_partial_file_without_resume_is_refused_and_kept(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    (tmp_path / "faces.csv").write_text("old")
    line = error_line(run_here("predict.py", *stopped.arguments()))
    assert "faces.csv.partial" in line and "resume=true" in line
    assert (tmp_path / "faces.csv.partial").read_bytes() == stopped.partial
    assert (tmp_path / "faces.csv").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "kept", "out_exists"),
    [("a.jpg", 0, True), ("b.jpg", 1, False), ("日本.jpg", 5, True), ("missing.jpg", 4, False)],
)
def test_resume_predicts_again_from_the_first_changed_image_on(
    name: str, kept: int, out_exists: bool, stopped: Stopped, run_here: Run, tmp_path: Path
) -> None:
    stopped.begin_in(tmp_path)
    shutil.copy(stopped.folder / "z.jpg", tmp_path / name)
    if out_exists:  # from an earlier run
        (tmp_path / "faces.csv").touch()
    outcome = run_here("predict.py", *stopped.arguments(), "resume=true")
    assert f"{name} has changed since: it and the images after it are predicted again\n" in outcome.err
    assert (f"{kept} images are done already\n" in outcome.err) == (kept > 0)
    rows = (tmp_path / "faces.csv").read_text(encoding="utf-8", errors="surrogateescape")
    with contextlib.chdir(tmp_path):
        assert predict([*NAMES], stopped.weights, "never", "whole.csv", batch_size=1) == (outcome.code == 0)
    assert rows == (tmp_path / "whole.csv").read_text(encoding="utf-8", errors="surrogateescape")


def test_resume_keeps_the_rows_of_a_file_that_is_gone(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    (tmp_path / "b.jpg").unlink()
    outcome = run_here("predict.py", *stopped.arguments(), "resume=true")
    assert f"{len(DONE)} images are done already" in outcome.err and "changed" not in outcome.err


@pytest.mark.parametrize("kind", ["image", "frame"])
@pytest.mark.parametrize("content", [b"other size", b"5 six"])
def test_file_stamp_changes_with_size_or_time(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1))
    name = f"{path}#t=0.50" if kind == "frame" else str(path)
    before = file_stamp(name)
    assert before is not None and file_stamp(name) == before
    path.write_bytes(content)
    assert file_stamp(name) not in (None, before)


@pytest.mark.parametrize(
    "name", ["missing", "", "a\0b", "http://127.0.0.1/a.jpg", "<ndarray>", "webcam#t=0.50", "x" * 5000]
)
def test_file_stamp_of_what_is_no_file_is_none(name: str) -> None:
    assert file_stamp(name) is None


@pytest.mark.parametrize("length", [0, 7, "head"])
def test_partial_file_without_predictions_is_ignored(
    length: int | str,
    stopped: Stopped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped.begin_in(tmp_path, length=stopped.partial.index(b"\n") + 1 if isinstance(length, str) else length)
    monkeypatch.chdir(tmp_path)
    predict([*NAMES], stopped.weights, "never", "faces.csv", frame_interval=3, batch_size=1)
    assert "done already" not in capsys.readouterr().err
    assert (tmp_path / "faces.csv").read_bytes() == stopped.whole["csv"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"frame_interval": 2}, "frame_interval=1.0, this run has frame_interval=2"),
        ({"min_confidence": 0.999}, "this run has min_confidence=0.999"),
        ({"tta": "flip"}, "tta=none, this run has tta=flip"),
        ({"thresholds": [18]}, "thresholds=None, this run has thresholds=[18]"),
        ({"detect": "always"}, "detect=never, this run has detect=always"),
        (
            {"annotate": "marked"},
            "annotate=None, this run has annotate=marked",
        ),  # the images done so far would not be annotated
        ({"weights": "last"}, "last.ckpt"),
        ({"weights": "changed"}, "sha256="),
    ],
)
def test_resume_refuses_other_settings_or_weights_by_name(
    setting: dict[str, Any], message: str, stopped: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped.begin_in(tmp_path)
    held, best = stopped.partial, Path(stopped.weights)
    if setting == {"weights": "last"}:
        setting = {"weights": str(best.with_name("last.ckpt"))}
    if setting == {"weights": "changed"}:  # other weights under the same name
        shutil.copy(best.with_name("last.ckpt"), tmp_path / "best.ckpt")
        setting = {"weights": "best.ckpt"}
        held = held.replace(stopped.weights.encode(), b"best.ckpt")
        (tmp_path / "faces.csv.partial").write_bytes(held)
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {"weights": stopped.weights, "detect": "never", "out": "faces.csv", "resume": True}
    with pytest.raises(AgeGenderError) as caught:
        predict([*NAMES], **asked | setting)
    line = str(caught.value)
    assert message in line and "delete it to start over" in line and len(line) < 600 and "\n" not in line
    assert (tmp_path / "faces.csv.partial").read_bytes() == held


def test_resume_without_annotate_is_refused_after_a_run_with_it(
    stopped: Stopped, run_here: Run, tmp_path: Path
) -> None:
    stopped.begin_in(tmp_path)
    held = stopped.partial.replace(b'"frame_interval"', b'"annotate": "marked", "frame_interval"', 1)
    (tmp_path / "faces.csv.partial").write_bytes(held)
    assert "annotate=marked, this run has annotate=None" in error_line(
        run_here("predict.py", *stopped.arguments(), "resume=true")
    )
    assert (tmp_path / "faces.csv.partial").read_bytes() == held
    run_here("predict.py", *stopped.arguments(), "resume=true", "annotate=marked")
    assert (tmp_path / "faces.csv").read_bytes() == stopped.whole["csv"]


@pytest.mark.parametrize(("left", "form"), [(None, "csv"), ("head", "csv"), (7, "csv"), ("head", "parquet")])
def test_resume_refuses_a_finished_file_and_keeps_it(
    left: str | int | None, form: str, stopped: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"faces.{form}"
    out.write_bytes(stopped.whole[form])
    if left is not None:  # left by a run killed before its first prediction
        length = stopped.partial.index(b"\n") + 1 if left == "head" else int(left)
        Path(f"{out}.partial").write_bytes(stopped.partial[:length])
    monkeypatch.chdir(tmp_path)
    line = rf"^faces\.{form} is finished: leave out resume=true to start over, or use another out$"
    with pytest.raises(AgeGenderError, match=line):
        predict("new.jpg", stopped.weights, "never", out.name, resume=True)
    assert out.read_bytes() == stopped.whole[form]


def test_second_run_into_one_file_is_refused(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    partial = tmp_path / "faces.csv.partial"
    partial.unlink()
    with PartialResults(tmp_path / "faces.csv", ORIGIN, TWO, resume=False) as first:
        first.add(ImageResult("a.jpg", [made("a.jpg", age=3.0)]))
        held = partial.read_bytes()
        refusal = "another run is writing faces.csv: wait for it to end, or use another out"
        assert refusal in error_line(run_here("predict.py", *stopped.arguments(), "resume=true"))
        with contextlib.chdir(tmp_path), pytest.raises(AgeGenderError, match=f"^{refusal}$"):
            PartialResults(Path("faces.csv"), ORIGIN, TWO, resume=False)
        assert partial.read_bytes() == held
        first.add(ImageResult("b.jpg", [made("b.jpg", age=4.0)]))
        assert [row["path"] for row in first.rows()] == ["a.jpg", "b.jpg"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".faces", "faces"))]


def test_lock_of_a_killed_run_is_ignored(stopped: Stopped, tmp_path: Path) -> None:
    assert (stopped.folder / ".faces.csv.partial.lock").exists()
    stopped.begin_in(tmp_path)
    shutil.copy(stopped.folder / ".faces.csv.partial.lock", tmp_path)
    assert stopped.go_on(tmp_path) == stopped.whole["csv"]
    assert [path.name for path in tmp_path.iterdir() if "faces" in path.name] == ["faces.csv"]


@pytest.mark.parametrize("out", [(), ("out=-",)])
def test_resume_without_out_is_refused(out: tuple[str, ...], run_here: Run) -> None:
    line = error_line(run_here("predict.py", "img=a.jpg", "resume=true", *out))
    assert "resume=true" in line and "out=answers.csv" in line


def test_resume_without_a_partial_file_starts_over(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    (tmp_path / "faces.csv.partial").unlink()
    assert "done already" not in run_here("predict.py", *stopped.arguments(), "resume=true").err
    assert (tmp_path / "faces.csv").read_bytes() == stopped.whole["csv"]


@pytest.mark.usefixtures("capsys")  # captures in memory: files are limited too
def test_run_that_fails_before_its_first_prediction_leaves_no_file(
    stopped: Stopped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with room_for(10), pytest.raises(AgeGenderError, match=r"can't write faces\.csv\.partial .File too large.$"):
        predict("a.jpg", stopped.weights, "never", "faces.csv")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_in_one_line_and_keeps_the_predictions(
    stopped: Stopped, run_here: Run, tmp_path: Path
) -> None:
    stopped.begin_in(tmp_path)
    partial = tmp_path / "faces.csv.partial"
    partial.unlink()
    (tmp_path / "faces.csv").write_text("old")
    with room_for(1200):
        line = error_line(run_here("predict.py", *stopped.arguments()))
    assert "can't write faces.csv.partial (File too large)" in line and "resume=true" in line
    assert (tmp_path / "faces.csv").read_text() == "old"
    kept = partial.read_bytes()
    assert stopped.partial.startswith(kept) and len(kept) == 1200
    assert stopped.go_on(tmp_path) == stopped.whole["csv"]


def test_resume_keeps_unsure_genders_and_refuses_another_min_confidence(
    stopped: Stopped, run_here: Run, tmp_path: Path
) -> None:
    stopped.begin_in(tmp_path)
    partial = tmp_path / "faces.csv.partial"
    partial.unlink()
    run_here("predict.py", *stopped.arguments("whole.csv"), "min_confidence=1")
    with room_for(1200):
        error_line(run_here("predict.py", *stopped.arguments(), "min_confidence=1"))
    assert partial.read_text().count('"gender": "unsure"') >= 1
    assert "min_confidence=1, this run has min_confidence=0.5" in error_line(
        run_here("predict.py", *stopped.arguments(), "resume=true", "min_confidence=0.5")
    )
    run_here("predict.py", *stopped.arguments(), "resume=true", "min_confidence=1")
    whole = (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "faces.csv").read_bytes() == whole
    assert whole.count(b",unsure,") == len(NAMES) - 1  # one is missing
    assert b"male" not in whole.partition(b"\n")[2]


def test_predictions_are_kept_when_out_can_not_be_written(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    stopped.begin_in(tmp_path)
    (tmp_path / "faces.csv.partial").unlink()
    out = f"{'x' * 236}.csv"  # too long for the temporary file of atomic_write
    assert "can't write out=" in error_line(run_here("predict.py", *stopped.arguments(out)))
    (tmp_path / f"{out}.partial").rename(tmp_path / "faces.csv.partial")
    assert stopped.go_on(tmp_path) == stopped.whole["csv"]


@pytest.mark.parametrize("kind", ["name too long", "folder", "link to nowhere", "link to a device"])
def test_partial_file_that_can_not_be_created_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    partial = tmp_path / "faces.csv.partial"
    if kind == "folder":
        partial.mkdir()
    elif kind.startswith("link"):
        partial.symlink_to("/dev/zero" if kind.endswith("device") else "nowhere/at all")
    out = f"{'x' * 247}.csv" if kind == "name too long" else "faces.csv"
    for resume in (True, False):
        with pytest.raises(AgeGenderError, match=r"^[^\n]*\.partial[^\n]*$"):
            PartialResults(tmp_path / out, ORIGIN, TWO, resume)


FOREIGN = (b"garbage", b"garbage\n", b"\0\xff\n" * 9, b"\n", b"[]\n", b"{}\n", b'{"a": 1}\n', b'"text"\n', b"1\nb\n")


@pytest.mark.parametrize("content", [*FOREIGN, b'{"agegender": 1}\n', b"[" * 100_000 + b"\n"])
def test_foreign_partial_file_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    partial = tmp_path / "faces.csv.partial"
    partial.write_bytes(content)
    for resume in (True, False):
        with pytest.raises(AgeGenderError, match=r"^[^\n]*faces\.csv\.partial is not a progress file[^\n]*$"):
            reopened(str(tmp_path), resume)
        assert partial.read_bytes() == content


def test_predict_refuses_a_foreign_partial_file_in_one_line(stopped: Stopped, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "faces.csv.partial").write_bytes(b"garbage\n")
    assert "is not a progress file" in error_line(run_here("predict.py", *stopped.arguments(), "resume=true"))


@pytest.mark.parametrize("damage", [b"not json", b"{}", b"[]", b"[1]", b"null", b'[{"path": 1}]', b"\xff", b""])
def test_resume_names_a_damaged_line(damage: bytes, stopped: Stopped, tmp_path: Path) -> None:
    lines = stopped.partial.splitlines()
    lines[2] = damage
    stopped.begin_in(tmp_path)
    (tmp_path / "faces.csv.partial").write_bytes(b"\n".join(lines) + b"\n")
    with contextlib.chdir(tmp_path), pytest.raises(AgeGenderError) as caught:
        PartialResults(Path("faces.csv"), json.loads(lines[0])["agegender"], TWO, resume=True)
    assert "line 3 of faces.csv.partial is damaged" in str(caught.value) and "\n" not in str(caught.value)


def reopened(folder: str, resume: bool = True) -> PartialResults:
    return PartialResults(Path(folder, "faces.csv"), ORIGIN, TWO, resume)


@settings(max_examples=100)
@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda more: b'{"agegender": ' + more))
def test_partial_results_survive_arbitrary_content(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "faces.csv.partial")
        path.write_bytes(content)
        try:
            with reopened(folder) as progress:
                assert not progress.done
        except AgeGenderError:
            assert path.read_bytes() == content


# A name is any bytes but NUL; Python hands over those that are not UTF-8 as lone surrogates.
PATHS = st.text(min_size=1) | st.binary(min_size=1).map(os.fsdecode)


@settings(max_examples=60)
@given(paths=st.lists(PATHS, max_size=4), more=st.lists(PATHS, max_size=2))
def test_partial_results_preserve_names_and_their_counts(paths: list[str], more: list[str]) -> None:
    def add(progress: PartialResults, names: list[str]) -> None:
        for name in names:
            progress.add(ImageResult(name, [made(name, 1, age=3.0), made(name, 2, age=4.0)]))

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(RuntimeError), reopened(folder, resume=False) as progress:
            add(progress, paths)
            raise RuntimeError
        with reopened(folder) as progress:
            assert progress.done == Counter(paths)
            add(progress, more)
            rows: list[dict[str, Any]] = list(progress.rows())
            assert [row["path"] for row in rows] == [name for name in [*paths, *more] for _ in range(2)]
        assert list(Path(folder).iterdir()) == []
