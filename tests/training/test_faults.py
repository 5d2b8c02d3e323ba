"""System faults end a run in one line: the cause, the file, the checkpoint kept and the command to continue."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of, room_for
from helpers.forked import start_training
from helpers.stopped_runs import FOUR, assert_same_run, differences, press_ctrl_c, stop_at, uninterrupted

from agegender.data.sources.synthetic import generate_faces
from agegender.runs.run_dir import is_running, make_unique_dir, run_lock
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]


@contextmanager
def small_disk(folder: Path, megabytes: int, *options: str) -> Iterator[Path]:
    """Mounts a small file system at `folder`; skips the test where mounting is not allowed."""
    folder.mkdir()
    size = ",".join((f"size={megabytes}m", *options))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    """Fills the free space of a file system."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(folder).free == 0


@pytest.fixture
def limit_file_size_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Limits the size of files from a step on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda epoch, batch: stop_at(
        monkeypatch, epoch, batch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def restore_file_size_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.slow
def test_full_disk_at_a_checkpoint_keeps_the_previous_one_to_resume(
    run_here: Run, uninterrupted: Path, tmp_path: Path, limit_file_size_at: Callable[[int, int], None]
) -> None:
    limit_file_size_at(1, 0)
    outcome = run_here("train.py", *FOUR, "~logger", "hydra.run.dir=run")
    restore_file_size_limit()
    folder = tmp_path / "run/checkpoints"
    outcome.assert_one_line_error(
        f"error: no room to write the checkpoint {folder}/",
        f"{folder}/last.ckpt is kept; continue with: python train.py resume={tmp_path / 'run'}",
    )
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 6
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert run_here("train.py", "resume=run").code == 0
    for name in ("best.ckpt", "last.ckpt"):
        ours, whole = (
            torch.load(run / "checkpoints" / name, weights_only=True) for run in (tmp_path / "run", uninterrupted)
        )
        assert differences(ours["state_dict"], whole["state_dict"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "csv"])
def test_full_disk_at_a_log_ends_the_run_and_keeps_the_checkpoint(
    run_here: Run, tmp_path: Path, limit_file_size_at: Callable[[int, int], None], logger: str
) -> None:
    limit_file_size_at(1, 2)
    outcome = run_here("train.py", *TINY, f"logger={logger}", "hydra.run.dir=run")
    restore_file_size_limit()
    run = tmp_path / "run"
    outcome.assert_one_line_error()
    what = {"tensorboard": f"a file in the run's folder {run}", "csv": f"the table of the log in {run}/csv"}
    assert outcome.err.startswith(f"error: no room to write {what[logger]}")
    assert f"{run}/checkpoints/last.ckpt is kept" in outcome.err
    assert run_here("train.py", "resume=run").code == 0


@pytest.mark.slow
def test_mounted_full_disk_ends_the_run_and_keeps_the_checkpoint(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        stop_at(monkeypatch, 1, 0, lambda: fill(disk))
        outcome = run_here("train.py", *TINY, f"hydra.run.dir={disk / 'run'}")
        outcome.assert_one_line_error(
            "no room to write", "No space left on device", f"{disk / 'run'}/checkpoints/last.ckpt is kept"
        )
        (disk / "filler").unlink()
        assert run_here("train.py", f"resume={disk / 'run'}").code == 0
        assert metrics_of(disk / "run")["epochs"] == 2


@pytest.mark.slow
def test_full_disk_at_the_test_predictions_keeps_the_training(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(self: AgeGenderModule) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    monkeypatch.setattr(AgeGenderModule, "on_test_start", limit)
    outcome = run_here("train.py", *TINY, "~logger", "hydra.run.dir=run")
    restore_file_size_limit()
    monkeypatch.undo()
    outcome.assert_one_line_error(f"error: no room to write the test predictions {tmp_path / 'run/predictions.csv'}")
    assert not (tmp_path / "run/predictions.csv").exists()
    assert run_here("train.py", "resume=run").code == 0


def test_full_disk_at_the_start_is_refused_in_one_line(run_here: Run) -> None:
    with room_for(500):
        outcome = run_here("train.py", *TINY, "hydra.run.dir=run")
    outcome.assert_one_line_error("can't write")


def test_full_disk_at_the_pixel_cache_is_refused_before_training(run_here: Run, tmp_path: Path) -> None:
    options = (*TINY, "data.image_size=256", f"data.cache_dir={tmp_path / 'cache'}")
    with room_for(1_000_000):
        outcome = run_here("train.py", *options, "hydra.run.dir=run")
    without = run_here("train.py", *options, "data.cache=none", "trainer.max_epochs=1", "data.num_workers=0")
    outcome.assert_one_line_error(
        f"error: no room for the pixel cache {tmp_path / 'cache'}/pixels/", "or use data.cache=none"
    )
    assert without.code == 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_unwritable_run_folder_is_refused_in_one_line(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the folder's place")
    outcome = run_here("train.py", *TINY)
    outcome.assert_one_line_error("can't write logs/", "choose another folder")


def test_read_only_run_folder_is_refused_in_one_line(run_here: Run, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1, "ro") as disk:
        outcome = run_here("train.py", *TINY, f"hydra.run.dir={disk / 'run'}")
    outcome.assert_one_line_error("Read-only file system", "choose another folder")


@pytest.fixture
def own_faces(tmp_path: Path) -> Path:
    return generate_faces(tmp_path / "faces", 60, seed=1, size=64)


FOLDER = (
    *(item for item in TINY if not item.startswith("data")),
    *("data.dir=faces", "data.image_size=32", "data.batch_size=8"),
)


@pytest.mark.slow
def test_data_folder_that_vanishes_changes_nothing_once_pixels_are_cached(
    run_here: Run, tmp_path: Path, own_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_here("train.py", *FOLDER, "hydra.run.dir=whole").code == 0
    stop_at(monkeypatch, 0, 2, lambda: shutil.rmtree(own_faces))
    outcome = run_here("train.py", *FOLDER, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("change", ["removed", "truncated"])
def test_image_that_turns_unreadable_ends_the_run_by_name(
    run_here: Run, tmp_path: Path, own_faces: Path, monkeypatch: pytest.MonkeyPatch, workers: int, change: str
) -> None:
    def act() -> None:
        for path in own_faces.iterdir():
            path.unlink() if change == "removed" else os.truncate(path, path.stat().st_size // 2)

    stop_at(monkeypatch, 1, 0, act)
    asked = (*FOLDER, "data.cache=none", f"data.num_workers={workers}", "hydra.run.dir=run")
    outcome = run_here("train.py", *asked)
    outcome.assert_one_line_error(
        f"error: {own_faces.relative_to(tmp_path)}/",
        "was readable when it was indexed and no longer is",
        f"{tmp_path}/run/checkpoints/last.ckpt is kept; continue with",
    )


@pytest.mark.slow
def test_resume_refuses_images_that_changed_meanwhile(run_here: Run, tmp_path: Path, own_faces: Path) -> None:
    assert run_here("train.py", *FOLDER, "hydra.run.dir=run").code == 0
    next(iter(sorted(own_faces.iterdir()))).unlink()
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    outcome.assert_one_line_error("the images' split was")


@pytest.mark.slow
def test_killed_loader_process_ends_the_run_in_one_line(tmp_path: Path, own_faces: Path) -> None:
    log = tmp_path / "log"
    asked = [*FOLDER, "data.cache=none", "data.num_workers=1", "hydra.run.dir=run"]
    process = start_training(asked, tmp_path, log, ("loader", 1))
    process.join(200)
    assert process.exitcode == 1, log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "a loader process is gone, perhaps killed" in line and "data.num_workers=0 (there were 1)" in line
    assert "Traceback" not in log.read_text()


def test_gpu_out_of_memory_is_one_line_with_a_remedy(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...\nmore lines")

    stop_at(monkeypatch, 1, 1, exhaust)
    outcome = run_here("train.py", *TINY, "hydra.run.dir=run")
    outcome.assert_one_line_error("error: the GPU ran out of memory with data.batch_size=16. Try ")
    for option in ("data.batch_size=8 trainer.accumulate_grad_batches=2", "trainer=mixed", "data.on_device=false"):
        assert option in outcome.err
    assert "last.ckpt is kept" in outcome.err


@pytest.mark.slow
def test_cpu_out_of_memory_is_one_line_with_a_remedy(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust() -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    stop_at(monkeypatch, 0, 1, exhaust)
    outcome = run_here("train.py", *TINY)
    outcome.assert_one_line_error("error: the CPU ran out of memory with data.batch_size=16. Try ")


@pytest.mark.slow
def test_programming_error_keeps_its_traceback(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    stop_at(monkeypatch, 0, 1, mistake)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_here("train.py", *TINY)


@pytest.mark.slow
def test_resume_survives_a_clock_that_jumps_back(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2, press_ctrl_c)
        assert run_here("train.py", *FOUR, "hydra.run.dir=run").code == 130
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (now() + 86_400, now() + 86_400))
    monkeypatch.setattr(time, "time_ns", lambda: int((now() - 86_400) * 1e9))
    assert run_here("train.py", "resume=run").code == 0
    assert_same_run(tmp_path / "run", uninterrupted)


def test_runs_started_in_the_same_second_have_a_folder_each(run_here: Run, tmp_path: Path) -> None:
    taken = [(datetime.now() + timedelta(seconds=k)).strftime("%Y-%m-%d_%H-%M-%S") for k in range(120)]
    for name in taken:
        (tmp_path / "logs/default" / name).mkdir(parents=True)
    assert run_here("train.py", *TINY, "trainer.max_epochs=1").code == 0
    (run,) = (tmp_path / "logs/default").glob("*/metrics.json")
    assert run.parent.name.removesuffix("_2") in taken and run.parent.name.endswith("_2")


@pytest.mark.slow
def test_sweeps_started_in_the_same_second_have_a_folder_each(run_here: Run, tmp_path: Path) -> None:
    taken = [(datetime.now() + timedelta(seconds=k)).strftime("sweep_%Y-%m-%d_%H-%M-%S") for k in range(120)]
    for name in taken:
        (tmp_path / "logs/default" / name).mkdir(parents=True)
    assert run_here("train.py", "-m", *TINY, "trainer.max_epochs=1", "seed=0,1").code == 0
    (table,) = (tmp_path / "logs/default").glob("*/sweep.json")
    assert table.parent.name.endswith("_2")
    assert sorted(path.parent.name for path in table.parent.glob("*/metrics.json")) == ["0", "1"]


def test_make_unique_dir_is_safe_between_threads(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def make(_: int) -> Path:
        barrier.wait()
        return make_unique_dir(tmp_path / "a" / "run")

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len(set(made)) == 8 and set(made) == set((tmp_path / "a").iterdir())


def test_second_run_in_the_folder_of_a_running_one_is_refused(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with run_lock(tmp_path / "run"):
        assert is_running(tmp_path / "run")
        outcome = run_here("train.py", *TINY, "hydra.run.dir=run")
    outcome.assert_one_line_error()
    assert "another run is training in" in outcome.err
    assert not is_running(tmp_path / "run")
    assert run_here("train.py", *TINY, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    assert not (tmp_path / "run/.at_work").exists()
