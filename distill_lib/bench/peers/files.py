"""The files of the benchmark of the input, and the cores that it may use; needs the standard library alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def read(case: dict[str, Any]) -> list[bytes]:
    """Keeps this process to so many cores, and reads the case's folder."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-case["cores"] :])
    return [path.read_bytes() for path in sorted(Path(case["folder"]).iterdir())]
