"""Signals at any moment: one line, the right exit code, nothing lost, nothing left running."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY

LIMIT = 300  # seconds after which a run hangs
SETTINGS = (*TINY, "data.cache=none", "data.num_workers=2", "trainer.max_epochs=3", "hydra.run.dir=run")


def press_ctrl_c(folder: Path, seconds: float, *settings: str) -> tuple[int, str]:
    """Run train.py in a terminal of its own, press Ctrl-C there after some seconds, and return exit code and output."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        os.execve(sys.executable, [sys.executable, str(ROOT / "train.py"), *SETTINGS, *settings], environment)
    shown, pressed, began = b"", False, time.monotonic()
    os.set_blocking(terminal, False)
    while True:
        if not pressed and time.monotonic() - began > seconds:
            os.write(terminal, b"\x03")  # to the whole process group, as a keyboard does
            pressed = True
        if time.monotonic() - began > LIMIT:
            os.killpg(child, signal.SIGKILL)
        try:
            shown += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # the last process closed the terminal
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode(errors="replace")


def assert_ended_well(code: int, shown: str, folder: Path) -> None:
    assert code in (0, 130), f"exit code {code}: {shown}"
    assert "Traceback" not in shown and "loader process is gone" not in shown, shown
    if code == 130:
        last = [line for line in shown.splitlines() if line.strip()][-1]
        assert re.search(r"interrupted( |;|$)", last), shown
    assert not list(folder.rglob("*.tmp")), shown
    for checkpoint in folder.rglob("*.ckpt"):
        torch.load(checkpoint, weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The seconds of a whole run."""
    folder, began = tmp_path_factory.mktemp("whole"), time.monotonic()
    code, shown = press_ctrl_c(folder, 1e9)
    assert code == 0, shown
    return time.monotonic() - began


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_with_loader_processes_saves_the_step(tmp_path: Path) -> None:
    began = time.monotonic()
    code, shown = press_ctrl_c(tmp_path, 9, "trainer.max_epochs=1000")
    assert code == 130 and time.monotonic() - began < 60, shown
    assert_ended_well(code, shown, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(50))
def test_ctrl_c_at_a_random_moment_ends_in_one_line(trial: int, whole: float, tmp_path: Path) -> None:
    seconds = random.Random(trial).uniform(0.1, whole)
    code, shown = press_ctrl_c(tmp_path, seconds)
    assert_ended_well(code, shown, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("trial", range(5))
def test_sigterm_and_sighup_at_a_random_moment_end_in_one_line(
    number: signal.Signals, trial: int, whole: float, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *SETTINGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(random.Random(100 + trial).uniform(0.3, whole))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + number), err
    assert "Traceback" not in err
    if process.returncode:
        assert err.splitlines()[-1].startswith({signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}[number]), err
