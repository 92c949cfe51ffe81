"""What a data set holds, as a digest: two runs saw the same data only if theirs are equal."""

from __future__ import annotations

import hashlib

import numpy as np

from distill_lib.datasets import image_folder
from distill_lib.datasets.source import Source, get, load

WHOLE = 4_096  # examples: splits that are no larger are read whole
SAMPLED = 1_024  # examples of a larger one that are read, evenly spread from the first to the last


def fingerprint(name: str) -> str:
    """What a run's name must include beside the data set's: the state of a folder of pictures; empty for other sets."""
    return image_folder.fingerprint(image_folder.path_of(name)) if name.startswith(image_folder.FOLDER) else ""


def digest(name: str, *splits: str, mock: bool = False) -> str:
    """Says in 16 hexadecimal digits what splits of a data set hold (none given: all): stored images, labels and names.

    Of a split of more than `WHOLE` examples `SAMPLED` are read, so that a change of a few others may go unseen; of a
    folder the paths and numbers of bytes of all pictures count too. It is the same on every machine. Raises as `load`
    does, but a picture that cannot be read is part of the content.
    """
    content = hashlib.sha256(("" if mock else fingerprint(name)).encode())
    for split in splits or get(name).splits:
        source = load(name, split, mock=mock)
        count = len(source)
        content.update(f"{split} {count}\n".encode())
        for index in range(count) if count <= WHOLE else np.linspace(0, count - 1, SAMPLED).astype(int):
            content.update(_example(source, int(index)))
    return content.hexdigest()[:16]


def _example(source: Source, index: int) -> bytes:
    image, label, name = source.encoded(index)
    kind = image.shape if isinstance(image, np.ndarray) else type(image).__name__
    stored = image.tobytes() if isinstance(image, np.ndarray) else image if isinstance(image, bytes) else b""
    return f"{name!a} {label} {kind}\n".encode() + hashlib.sha256(stored).digest()
