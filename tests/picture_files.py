"""Folders of made-up pictures; not a test itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write(path: Path, pixels: np.ndarray | None = None) -> Path:
    """Writes a picture, of one colour if none is given."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 9, 3), len(path.name), np.uint8) if pixels is None else pixels).save(path)
    return path


def fill(root: Path, number: int = 40, classes: tuple[str, ...] = ("tulips", "roses")) -> Path:
    """Writes a number of pictures of each class."""
    for name in classes:
        for index in range(number):
            write(root / name / f"{index}.png")
    return root
