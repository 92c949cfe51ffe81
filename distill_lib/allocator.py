"""What the C library does with memory that a step frees: it is kept for the next step, on Linux with glibc."""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = {-1: -1, -2: 256 * 2**20, -4: 0}
"""By option of `mallopt`: M_TRIM_THRESHOLD (never trim), M_TOP_PAD and M_MMAP_MAX (map nothing), as in malloc.h."""


def keep_freed_memory() -> None:
    """Lets glibc, where it is, keep large buffers; else it hands them back to the kernel, which zeroes pages again.

    No result changes. Settings of the user's own, in MALLOC_* or GLIBC_TUNABLES, stay as they are.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in KEPT.items():
            mallopt(option, value)
