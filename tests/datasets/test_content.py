"""The digest of a data set: it changes with what is seen, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import fill, write

from distill_lib import datasets


def swap_pixels(picture: Path) -> None:
    """Changes one byte in the middle of a file, so that its size stays."""
    data = bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 1
    picture.write_bytes(data)


def test_other_pixels_of_equal_size_are_other_data(tmp_path: Path) -> None:
    """The fingerprint of names and sizes does not see them; a copy elsewhere is the same data."""
    name, copy = f"folder:{fill(tmp_path / 'a')}", f"folder:{fill(tmp_path / 'b')}"
    before = datasets.digest(name)
    assert before == datasets.digest(name) == datasets.digest(copy) and len(before) == 16
    unchanged, fingerprint = datasets.digest(name, "test"), datasets.fingerprint(name)
    source = datasets.load(name, "train")
    swap_pixels(tmp_path / "a" / source.encoded(len(source) - 1).name)
    assert datasets.fingerprint(name) == fingerprint
    assert datasets.digest(name) != before and datasets.digest(name, "test") == unchanged


def test_another_label_is_other_data(tmp_path: Path) -> None:
    """The same pictures in the other class teach something else."""
    write(fill(tmp_path, 20) / "roses" / "0.png", np.zeros((6, 9, 3), np.uint8))
    before = datasets.digest(f"folder:{tmp_path}")
    for old, new in (("roses", "x"), ("tulips", "roses"), ("x", "tulips")):
        (tmp_path / old).rename(tmp_path / new)
    assert datasets.digest(f"folder:{tmp_path}") != before


def test_a_large_split_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of its examples are read, the same ones each time, from the first to the last."""
    monkeypatch.setattr("distill_lib.datasets.source.WHOLE", 20)
    monkeypatch.setattr("distill_lib.datasets.source.SAMPLED", 5)
    name = f"folder:{fill(tmp_path, 30)}"
    source, before = datasets.load(name, "train"), datasets.digest(name, "train")
    swap_pixels(tmp_path / source.encoded(1).name)
    assert datasets.digest(name, "train") == before
    swap_pixels(tmp_path / source.encoded(len(source) - 1).name)
    assert datasets.digest(name, "train") != before


def test_sets_of_every_kind_have_a_digest() -> None:
    """Stored bytes, arrays of packages, and invented images, which are not the real ones."""
    real = [datasets.digest(name, "train") for name in ("fashion", "digits")]
    mock = [datasets.digest(name, "train", mock=True) for name in ("fashion", "flowers")]
    assert len({*real, *mock}) == 4 and mock[0] == datasets.digest("fashion", "train", mock=True)
