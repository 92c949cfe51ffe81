"""Memory that is freed is kept for the next step, however Python was started, unless the user wants otherwise."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

_MAPPED = """
import ctypes, sys
import distill_lib.train.step
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = type("Info", (ctypes.Structure,), {"_fields_": [(str(i), ctypes.c_size_t) for i in range(10)]})
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
before = getattr(libc.mallinfo2(), "3")
assert libc.malloc(48 << 20)
print(getattr(libc.mallinfo2(), "3") - before)
"""

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc alone has these settings"
)


@glibc
@pytest.mark.parametrize(("own", "mapped"), [({}, 0), ({"MALLOC_PERTURB_": "0"}, 1)])
def test_a_process_that_trains_maps_no_large_buffers(own: dict[str, str], mapped: int) -> None:
    """What a mapping frees goes back to the kernel; a user's own settings stay as they are."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", _MAPPED], env=usual | own, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{mapped}\n", done.stderr
