"""Configure glibc's malloc to keep freed memory, which the next training step allocates again."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_GROW_BY = 256 << 20  # bytes requested from the kernel at a time


def disable_malloc_trim() -> bool:
    """Set glibc's malloc to return no memory to the kernel for the lifetime of this process.

    A training step on a CPU frees and reallocates buffers of many megabytes. By default, glibc maps each of them anew,
    and the kernel zeroes every page; docs/performance.md has the cost. The price is memory: resident memory stays at
    its peak until the process ends.

    Returns:
        Whether the options were set; other allocators (musl, macOS, Windows, jemalloc in front of glibc) are left as
        they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(name, value) == 1 for name, value in options)
