"""`kill -9` loses the steps since the newest valid checkpoint only, at any moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome, metrics_of
from helpers.forked import PLACES, start_training
from helpers.stopped_runs import FOUR, assert_same_run

from agegender.errors import AgeGenderError
from agegender.runs.checkpoint import load_checkpoint
from agegender.runs.resume import latest_valid_checkpoint
from agegender.system.files import atomic_write

Run = Callable[..., Outcome]
LONG = (*FOUR, "trainer.max_epochs=20", "data.val_fraction=0.3", "callbacks.early_stopping=null")


def last_step(run: Path) -> int:
    path = latest_valid_checkpoint(run)
    return int(torch.load(path, weights_only=True)["global_step"]) if path else 0


def kill_at_random(process: object, moment: float, log: Path) -> None:
    """Kills a process `moment` seconds after the end of its next epoch."""
    seen = log.read_text().count("epoch ") if log.exists() else 0
    while process.is_alive() and log.read_text().count("epoch ") == seen:  # type: ignore[attr-defined]
        time.sleep(0.005)
    time.sleep(moment)
    process.kill()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_run_killed_ten_times_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    chance = random.Random(7)
    log = tmp_path / "log"
    log.touch()
    whole = start_training([*LONG, "hydra.run.dir=whole"], tmp_path, tmp_path / "whole.log")
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "whole.log").read_text()

    # five kills at random times, and one in each place (step, validation, write), in random order
    plan = [*PLACES, *[None] * 5]
    chance.shuffle(plan)
    command = [*LONG, "hydra.run.dir=killed", "resume=auto"]
    reached = []
    for kill, place in enumerate(plan):
        died = (place, chance.randint(2, 5)) if place else None
        process = start_training(command, tmp_path, log, died)
        if place is None:
            kill_at_random(process, chance.uniform(0, 0.1), log)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"kill {kill + 1} found no run: {log.read_text()}"
        reached.append(last_step(tmp_path / "killed"))
    assert reached == sorted(reached)  # no kill lost a saved step
    process = start_training(command, tmp_path, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    assert "is damaged" not in log.read_text()
    assert not list((tmp_path / "killed/checkpoints").glob(".*"))  # no temporary file is left
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.fixture
def copied(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two epochs, to be damaged."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.mark.parametrize("damage", ["truncated", pytest.param("empty", marks=pytest.mark.slow), "one bit"])
def test_resume_names_a_damaged_checkpoint_and_takes_the_newest_valid_one(
    run_here: Run, copied: Path, damage: str
) -> None:
    last, best = (copied / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    content = bytearray(last.read_bytes())
    middle = len(content) // 2
    if damage == "one bit":  # in the weights, where PyTorch checks nothing
        state = torch.load(last, weights_only=True)["state_dict"]
        weights = next(value for name, value in state.items() if name.endswith("weight")).numpy().tobytes()
        content[content.find(weights)] ^= 1
    damaged = {"truncated": content[:middle], "empty": bytearray(), "one bit": content}
    last.write_bytes(damaged[damage])
    (copied / "checkpoints/.last.ckpt.x.partial").write_bytes(b"half")
    (copied / "metrics.json").unlink()
    outcome = run_here("train.py", f"resume={copied}")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"warning: {last} ") and "damaged" in outcome.err and "skipped" in outcome.err
    assert "continuing " in outcome.out and "from checkpoints/best.ckpt" in outcome.out
    assert metrics_of(copied)["epochs"] == 2
    assert load_checkpoint(last)["global_step"] == 12 and load_checkpoint(best)
    assert not list((copied / "checkpoints").glob(".*"))


def test_latest_valid_checkpoint_compares_steps_and_not_file_times(copied: Path) -> None:
    folder = copied / "checkpoints"
    os.utime(folder / "last.ckpt", (1, 1))
    assert latest_valid_checkpoint(copied) == folder / "last.ckpt"
    content = torch.load(folder / "best.ckpt", weights_only=True)
    torch.save({**content, "global_step": 13}, folder / "best.ckpt")  # the kill came between the two writes
    assert latest_valid_checkpoint(copied) == folder / "best.ckpt"


def test_resume_without_a_valid_checkpoint_is_refused_after_naming_each(run_here: Run, copied: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        os.truncate(copied / "checkpoints" / name, 1000)
    outcome = run_here("train.py", f"resume={copied}")
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["warning", "warning", "error"]
    assert "no valid checkpoint" in lines[2] and "start the run again" in lines[2]


def test_resume_refuses_a_damaged_checkpoint_given_by_name(run_here: Run, copied: Path) -> None:
    os.truncate(copied / "checkpoints/last.ckpt", 1000)
    outcome = run_here("train.py", f"resume={copied / 'checkpoints/last.ckpt'}")
    outcome.assert_one_line_error("last.ckpt is damaged")


def test_atomic_write_keeps_the_old_content_until_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(TypeError), atomic_write(path, durable=True) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"before" and [path] == list(tmp_path.iterdir())
    with atomic_write(path, durable=True) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"


def test_load_checkpoint_refuses_a_foreign_file(copied: Path, tmp_path: Path) -> None:
    assert load_checkpoint(copied / "checkpoints/best.ckpt")["epoch"] in (0, 1)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(AgeGenderError, match="not an agegender checkpoint"):
        load_checkpoint(tmp_path / "foreign.ckpt")
