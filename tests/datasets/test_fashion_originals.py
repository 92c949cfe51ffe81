"""The original files are found, proved and put back into their order."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill_lib.datasets import fashion
from distill_lib.errors import DistillError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> fashion.Originals:
    """Small files in place of the originals: 40 training and 12 test images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (52, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 52).astype(np.uint8)
    small = fashion.Originals(images[:40], labels[:40], images[40:], labels[40:])
    sums = [hashlib.sha256(fashion.idx_bytes(array)).hexdigest() for array in small]
    monkeypatch.setattr(fashion, "IDX_SHA256", dict(zip(fashion.IDX_SHA256, sums, strict=True)))
    monkeypatch.setattr(fashion, "DEBIAN_FOLDER", Path("/nowhere"))
    monkeypatch.delenv(fashion.FOLDER_VARIABLE, raising=False)
    return small


def store(small: fashion.Originals, folder: Path, *, compressed: bool = True) -> Path:
    for name, array in zip(fashion.IDX_SHA256, small, strict=True):
        content = fashion.idx_bytes(array)
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


def test_a_missing_folder_is_told_with_the_commands(
    small: fashion.Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
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


def store_with_tfds(small: fashion.Originals, data_dir: Path) -> None:
    """Stores the images as TFDS does: under the name fashion_mnist, shuffled by the hash of their numbers."""
    import tensorflow_datasets as tfds

    def examples(images: np.ndarray, labels: np.ndarray) -> Any:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, format="PNG")
            png.seek(0)
            yield number, {"image": png, "label": int(label)}

    class FashionMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.builder_cls("fashion_mnist").VERSION

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": examples(*small[:2]), "test": examples(*small[2:])}

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    FashionMnist(data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def test_what_tfds_prepared_comes_back_in_the_original_order(
    small: fashion.Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    store_with_tfds(small, tmp_path)
    assert_equal(fashion.read_originals(), small)
