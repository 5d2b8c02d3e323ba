"""Memory allocation: freed memory is kept for the next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
if sys.argv[1] == "kept":
    from agegender.system.malloc import disable_malloc_trim
    assert disable_malloc_trim()
def step():
    return torch.ones(1 << 24)  # 64 MiB: by default, glibc asks the system for as much each time
for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_disable_malloc_trim_reuses_memory_across_steps() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("kept", "returned")
    }
    assert faults["kept"] * 3 < faults["returned"]
