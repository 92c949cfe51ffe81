"""The original files are found and proved."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from distill_lib.datasets import fashion
from distill_lib.errors import DistillError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> fashion.Originals:
    """Small files in place of the originals: 40 training and 12 test images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (52, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 52).astype(np.uint8)
    small = fashion.Originals(images[:40], labels[:40], images[40:], labels[40:])
    sums = [hashlib.sha256(idx_bytes(array)).hexdigest() for array in small]
    monkeypatch.setattr(fashion, "IDX_SHA256", dict(zip(fashion.IDX_SHA256, sums, strict=True)))
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", Path("/nowhere"))
    monkeypatch.delenv(fashion.FOLDER_VARIABLE, raising=False)
    return small


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of unsigned bytes: two zero bytes, type 8, rank, big-endian sizes, values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def store(small: fashion.Originals, folder: Path, *, compressed: bool = True) -> Path:
    for name, array in zip(fashion.IDX_SHA256, small, strict=True):
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


def assert_equal(left: fashion.Originals, right: fashion.Originals) -> None:
    for ours, theirs in zip(left, right, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.uint8


@pytest.mark.parametrize("compressed", [True, False])
def test_reads_files_gzipped_or_not(small: fashion.Originals, tmp_path: Path, compressed: bool) -> None:
    assert_equal(fashion.read_originals(store(small, tmp_path, compressed=compressed)), small)


def test_the_variable_names_the_folder(
    small: fashion.Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fashion.FOLDER_VARIABLE, str(store(small, tmp_path)))
    assert_equal(fashion.read_originals(), small)


def test_the_debian_folder_is_found(small: fashion.Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", store(small, tmp_path))
    assert_equal(fashion.read_originals(), small)


def test_a_missing_folder_is_told_with_the_commands(small: fashion.Originals) -> None:
    with pytest.raises(DistillError, match="is missing.*apt-get download dataset-fashion-mnist && dpkg -x") as caught:
        fashion.read_originals()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "other bytes"])
def test_a_damaged_file_is_told(small: fashion.Originals, tmp_path: Path, damage: str) -> None:
    path = store(small, tmp_path) / "train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    bad = {"truncated": good[:1000], "no gzip": b"<html>", "other bytes": gzip.compress(b"\0\0\x08\x01\0\0\0\x01\x05")}
    path.write_bytes(bad[damage])
    with pytest.raises(DistillError, match="fetch it again") as caught:
        fashion.read_originals(tmp_path)
    assert "\n" not in str(caught.value)
