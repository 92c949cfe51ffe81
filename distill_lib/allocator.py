"""What the C library does with memory that a step frees: it is kept for the next step, on Linux with glibc."""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = {-1: -1, -2: 256 * 2**20, -4: 0}
"""By option of `mallopt`: M_TRIM_THRESHOLD (never trim), M_TOP_PAD and M_MMAP_MAX (map nothing), as in malloc.h."""


def keep_freed_memory() -> None:
    """Lets glibc keep large buffers that are freed; where there is no glibc, it does nothing.

    Otherwise glibc hands every large buffer of a step back to the kernel, which has to zero its pages again. No result
    changes. Settings of the user's own, in MALLOC_* or GLIBC_TUNABLES, stay as they are.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for option, value in KEPT.items():
        mallopt(option, value)
