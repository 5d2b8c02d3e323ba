"""Keeps the memory that a training step frees for the next one, which takes as much again a moment later."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_GROW_BY = 256 << 20  # bytes asked of the system at a time


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to give no memory back to the system while this process lives.

    A step on a CPU frees and takes again buffers of many megabytes. By default, glibc gets each of them from the kernel
    anew, which clears every page; docs/performance.md has what that costs. The price is memory: what the process held
    once, it holds to its end.

    Returns:
        Whether it could be said; other allocators (musl, macOS, Windows, jemalloc in front of glibc) are left as they
        are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(name, value) == 1 for name, value in options)
