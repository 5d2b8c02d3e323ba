"""Processes that block signals: the main process ends them with itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# An interruption while a loader starts its workers leaves them to the interpreter's exit.
LEAVES_A_WORKER = """
import multiprocessing.util, time
from agegender.system.signals import blocked
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
with blocked():
    worker.start()
print(worker.pid)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_process_with_a_worker_that_blocks_signals_ends_with_it() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LEAVES_A_WORKER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
