"""A small file in the place of a published checkpoint; not a test itself."""

from __future__ import annotations

import hashlib
import io

import numpy as np

NAME = "R50x1_224"
FILE = f"{NAME}.npz"


def npz(**arrays: object) -> bytes:
    """An .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


CONTENT = npz(a=np.arange(5000.0))
DIGEST = hashlib.sha256(CONTENT).hexdigest()
