"""Wait for the progress of a command in the background."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 500) -> None:
    """Returns when the file exists; fails with the process's stderr if the process ends first."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"no {path} after {seconds} seconds"
        time.sleep(0.02)


def wait_for_text(text: str, log: Path, process: subprocess.Popen[Any], seconds: float = 600) -> str:
    until = time.monotonic() + seconds
    while text not in (seen := log.read_text(encoding="utf-8")):
        assert process.poll() is None and time.monotonic() < until, seen
        time.sleep(0.05)
    return seen
