"""predict.py in a pipeline: names on standard input, JSON lines on standard output, constant memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome
from PIL import Image

Run = Callable[..., Outcome]
SCRIPT = f"'{sys.executable}' '{ROOT / 'predict.py'}'"


@pytest.fixture
def pictures(faces: Path, tmp_path: Path) -> list[str]:
    names = ["a b.jpg", "日本.jpg", os.fsdecode(b"\xff.jpg"), "${x}.jpg"]
    for name, path in zip(names, sorted(faces.glob("*.jpg")), strict=False):
        (tmp_path / name).write_bytes(path.read_bytes())
    return names


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_predict_reads_names_from_a_pipe_and_writes_json_lines(
    pictures: list[str], trained_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "names").write_bytes(b"".join(os.fsencode(name) + b"\r\n\n" for name in pictures) + b"missing.jpg")
    done = shell(f"{SCRIPT} img=- weights='{trained_run}' detect=never out=- < names | cat", tmp_path)
    assert done.returncode == 1  # one image could not be read
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [*pictures, "missing.jpg"]
    assert [row["error"] for row in rows] == [None] * 4 + ["no such file"]
    messages = done.stderr.splitlines()
    assert [line.split(":")[0] for line in messages[:2]] == ["weights", "warning"]
    assert messages[2:] == ["1 of 5 images could not be answered; see their errors"]


@pytest.mark.slow
def test_predict_writes_each_prediction_before_the_next_name_arrives(
    pictures: list[str], trained_run: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "predict.py"), "img=-", f"weights={trained_run}", "detect=never", "out=-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as run:  # type: ignore[call-overload]
        for name in pictures:  # each write waits for the read
            run.stdin.write(os.fsencode(name) + b"\n")
            run.stdin.flush()
            assert json.loads(run.stdout.readline())["path"] == name
        rest, _ = run.communicate(timeout=60)
    assert (run.returncode, rest) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("out", ["out=-", "out=faces.csv"])
def test_predict_refuses_empty_standard_input_in_one_line(out: str, trained_run: Path, tmp_path: Path) -> None:
    done = shell(f"{SCRIPT} img=- weights='{trained_run}' detect=never {out} < /dev/null", tmp_path)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (1, "", [])
    line = "error: img=- found no name on standard input: write one name per line"
    assert done.stderr.splitlines()[2:] == [line]


@pytest.mark.parametrize("out", ["out=-", pytest.param("", marks=pytest.mark.slow)])
def test_predict_ends_silently_on_a_closed_pipe(out: str, faces: Path, trained_run: Path, tmp_path: Path) -> None:
    head = "head -1" if out else "true"  # a table is written at the end
    line = f"{SCRIPT} img='{faces}' weights='{trained_run}' detect=never batch_size=2 {out} | {head}"
    done = shell(line, tmp_path)
    assert done.returncode == 141 if out else done.returncode in (1, 141)  # newer releases of Rich exit themselves
    assert len(done.stdout.splitlines()) == (1 if out else 0)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["weights", "warning"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("out", ["out=-", pytest.param("", marks=pytest.mark.slow)])
def test_predict_reports_a_full_device_in_one_line(
    out: str, pictures: list[str], trained_run: Path, tmp_path: Path
) -> None:
    line = f"{SCRIPT} img='{pictures[0]}' weights='{trained_run}' detect=never {out} > /dev/full"
    done = shell(line, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[2:] == ["error: can't write to standard output (No space left on device)"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("a b.jpg",), 0),
        (("a b.jpg", "img=missing.jpg"), 1),
        (("img=missing.jpg",), 1),
        (("img=a b.jpg", "img=sea.png", "detect=auto"), 0),
        (("img=sea.png", "img=missing.jpg", "detect=auto"), 1),
        (("a b.jpg", "weights=nowhere.ckpt"), 1),
        (("a b.jpg", "weigths=x"), 2),
        (("a b.jpg", "detect=perhaps"), 1),
    ],
)
def test_predict_exits_with_0_only_if_every_image_was_answered_with_or_without_a_face(
    arguments: tuple[str, ...], code: int, pictures: list[str], trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 200), "navy").save(tmp_path / "sea.png")
    outcome = run_here("predict.py", "detect=never", f"weights={trained_run}", "out=-", *arguments)
    assert pictures and outcome.code == code and "Traceback" not in outcome.err
    assert outcome.out.count("\n") == outcome.out.count('"path"')


def peak_memory(folder: Path, run: Path, count: int, batch_size: int) -> int:
    """Returns the peak memory of a run over `count` images, in bytes."""
    (folder / "names").write_text("".join(f"{number}.jpg\n" for number in range(count)))
    command = [sys.executable, str(ROOT / "predict.py"), "img=-", f"weights={run}", "detect=never", "out=-"]
    with (folder / "names").open() as names, (folder / "answers").open("w") as answers:
        process = subprocess.Popen(
            [*command, f"batch_size={batch_size}"], cwd=folder, stdin=names, stdout=answers, stderr=answers
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0 and (folder / "answers").read_text().count('"error": null') == count
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_predict_memory_is_constant_in_images_and_batch_size(faces: Path, trained_run: Path, tmp_path: Path) -> None:
    with Image.open(min(faces.glob("*.jpg"))) as picture:
        picture.convert("RGB").resize((1000, 800)).save(tmp_path / "0.jpg")
    for number in range(1, 300):
        (tmp_path / f"{number}.jpg").symlink_to("0.jpg")
    few, many = peak_memory(tmp_path, trained_run, 40, 4), peak_memory(tmp_path, trained_run, 300, 64)
    assert many - few < 60e6, (few, many)  # 128 decoded pictures, those of two batches, would take 300 MB
