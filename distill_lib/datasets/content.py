"""What a data set holds, as a digest: two runs saw the same data only if theirs are equal."""

from __future__ import annotations

import hashlib

import numpy as np

from distill_lib.datasets.registry import fingerprint, get
from distill_lib.datasets.source import Source, load

WHOLE = 4_096  # examples: splits that are no larger are read whole
SAMPLED = 1_024  # examples of a larger one that are read, evenly spread from the first to the last


def digest(name: str, *splits: str, mock: bool = False) -> str:
    """Says in 16 hexadecimal digits what a data set holds: its images as they are stored, their labels and names.

    Of a split of more than `WHOLE` examples `SAMPLED` are read, so that a change of a few others may go unseen; of a
    folder the paths and numbers of bytes of all pictures count too. It is the same on every machine.

    Args:
        name: a data set.
        splits: those that count; none given takes all.
        mock: whether invented images stand in for the files, see `load`.

    Raises:
        DistillError: as `load` does; a picture that cannot be read is part of the content.
    """
    content = hashlib.sha256(("" if mock else fingerprint(name)).encode())
    for split in splits or get(name).splits:
        source = load(name, split, mock=mock)
        content.update(f"{split} {len(source)}\n".encode())
        for index in _spread(len(source)):
            content.update(_example(source, index))
    return content.hexdigest()[:16]


def _spread(count: int) -> range | np.ndarray:
    return range(count) if count <= WHOLE else np.linspace(0, count - 1, SAMPLED).astype(int)


def _example(source: Source, index: int) -> bytes:
    image, label, name = source.encoded(int(index))
    kind = image.shape if isinstance(image, np.ndarray) else type(image).__name__
    stored = image.tobytes() if isinstance(image, np.ndarray) else image if isinstance(image, bytes) else b""
    return f"{name!a} {label} {kind}\n".encode() + hashlib.sha256(stored).digest()
