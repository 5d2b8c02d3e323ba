"""Waits for a command that runs in the background to come so far."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 500) -> None:
    """Returns when the file is there; fails with what the process said if it ended before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"no {path} after {seconds} seconds"
        time.sleep(0.02)
