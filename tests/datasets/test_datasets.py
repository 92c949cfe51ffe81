"""Data sets by name: the registry agrees with TFDS, splits are what they say, and what is wrong is told in one line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import fashion_build

from distill_lib import datasets
from distill_lib.datasets import decode, fashion
from distill_lib.datasets import source as dataset_source
from distill_lib.errors import DistillError

BIG = ("flowers", "pets", "food", "sun397", "imagenet", "imagenet_v2", "imagenet_real")


@pytest.mark.slow
@pytest.mark.parametrize(("split", "a_class"), [("train", 102), ("validation", 102), ("test", 1_000)])
def test_fashion_is_what_its_card_says(split: str, a_class: int) -> None:
    images, labels, _ = datasets.arrays("fashion", split)
    assert images.shape == (10 * a_class, 28, 28, 1) and images.dtype == np.uint8
    assert labels.shape == (10 * a_class,) and labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, a_class))
    assert images.max() == 255 and images.min() == 0


@given(st.integers(1, 1_020))
def test_any_prefix_of_train_is_balanced(limit: int) -> None:
    images, labels, *_ = datasets.arrays("fashion", "train", limit)
    counts = np.bincount(labels, minlength=10)
    assert len(images) == len(labels) == limit
    assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(images, datasets.arrays("fashion", "train").images[:limit])


def test_teacher_is_judged_on_the_splits_of_the_students() -> None:
    for split in ("validation", "test"):
        ours, theirs = datasets.arrays("fashion", split), datasets.arrays("fashion_teacher", split)
        np.testing.assert_array_equal(ours.images, theirs.images)


def test_splits_are_decoded_once_and_cannot_be_changed() -> None:
    first, second = datasets.arrays("fashion", "train"), datasets.arrays("fashion", "train")
    assert np.shares_memory(first.images, second.images)
    part = datasets.arrays("fashion", "train", 7).images
    np.testing.assert_array_equal(part, first.images[:7])
    for images in (first.images, part):
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_source_gives_random_access() -> None:
    source = datasets.load("fashion", "validation", limit=50)
    whole = datasets.arrays("fashion", "validation")
    indices = np.array([49, 0, 7, 7], np.int32)
    np.testing.assert_array_equal(source.images(indices), whole.images[indices])
    np.testing.assert_array_equal(source.labels(indices), whole.labels[indices])
    assert len(source) == 50 and source.labels(indices).dtype == np.int32
    with pytest.raises(IndexError, match="examples 0 to 49, not 50"):
        source[50]


@pytest.mark.parametrize("limit", [0, -1, 1_021])
def test_impossible_limits_are_refused(limit: int) -> None:
    with pytest.raises(DistillError, match=f"choose a limit from 1 to 1020, not {limit}"):
        datasets.arrays("fashion", "train", limit)


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name in datasets.names() for split in datasets.get(name).splits]
)
def test_mock_data_stands_in_for_every_set(name: str, split: str) -> None:
    dataset = datasets.get(name)
    images, labels, extents = datasets.arrays(name, split, 6, mock=True, canvas=None if dataset.size else 48)
    assert extents is None if dataset.size else (extents.max(axis=1) == 48).all()
    side = dataset.size or 48
    assert images.shape == (6, side, side, dataset.channels) and images.dtype == np.uint8
    assert labels.shape == ((6, 1_000) if dataset.multilabel else (6,))
    assert labels.min() >= 0 and labels.max() < dataset.num_classes
    again = datasets.arrays(name, split, 6, mock=True, canvas=None if dataset.size else 48)
    np.testing.assert_array_equal(images, again.images)


def test_canvas_keeps_the_aspect() -> None:
    wide = np.full((10, 40, 3), 200, np.uint8)
    fitted, extent = decode.fitted(wide, 3, 64)
    assert fitted.shape == (64, 64, 3) and extent == (16, 64)
    assert (fitted[:16] == 200).all() and (fitted[16:] == 0).all()


def test_grey_images_among_photographs_become_rgb() -> None:
    encoded = fashion_build.encode_png(np.arange(12, dtype=np.uint8).reshape(3, 4))
    photo, extent = decode.fitted(encoded, 3, None)
    assert extent == (3, 4)
    np.testing.assert_array_equal(photo, np.repeat(np.arange(12).reshape(3, 4, 1), 3, axis=2))


def test_too_many_images_for_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_source, "MEMORY_LIMIT", 1000)
    with pytest.raises(DistillError, match="give a limit or a smaller canvas"):
        datasets.arrays("flowers", "train", 2, mock=True, canvas=32)


@pytest.mark.parametrize("name", BIG)
def test_an_unprepared_set_is_told_with_the_commands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    command = re.escape(f"builder('{datasets.get(name).builder}').download_and_prepare(file_format='array_record')")
    with pytest.raises(DistillError, match=f"is not prepared as array_record.*{command}") as caught:
        datasets.load(name, "test")
    assert "\n" not in str(caught.value)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder that is not the embedded one, and so is not checked by SHA-256."""
    shutil.copytree(fashion.DATA / "fashion", tmp_path / "fashion")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path / "fashion" / fashion.VERSION


def photos(**counts: int) -> datasets.Dataset:
    splits = dict.fromkeys(counts, "train[:90%]")
    facts = {"num_classes": 10, "channels": 1, "licence": "", "citation": ""}
    return datasets.Dataset(name="photos", builder="fashion", splits=splits, counts=counts, **facts)


def test_prepared_sets_are_read_by_split_expression(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dataset_source.CARDS, "photos", photos(train=918))
    images, labels, *_ = datasets.arrays("photos", "train", canvas=28)
    np.testing.assert_array_equal(images, datasets.arrays("fashion", "train", 918).images)
    np.testing.assert_array_equal(labels, datasets.arrays("fashion", "train", 918).labels)


def test_wrong_number_of_examples_is_told(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dataset_source.CARDS, "photos", photos(train=919))
    with pytest.raises(DistillError, match="does not match its card: photos train: 918 instead of 919 train images"):
        datasets.load("photos", "train")


def test_a_missing_shard_is_told(prepared: Path) -> None:
    next(prepared.glob("fashion-test*")).unlink()
    with pytest.raises(DistillError, match="1 of 3 shards are missing in .*fashion-test"):
        datasets.load("tfds:fashion", "train")


def test_a_truncated_shard_is_told(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = next(prepared.glob("fashion-train*"))
    shard.write_bytes(shard.read_bytes()[:300_000])
    monkeypatch.setitem(dataset_source.CARDS, "photos", photos(train=918))
    with pytest.raises(DistillError, match="array_record that does not match its card: photos train: ") as caught:
        datasets.arrays("photos", "train")
    assert "\n" not in str(caught.value)


def test_another_file_format_is_told(prepared: Path) -> None:
    info = prepared / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(DistillError, match="is not prepared as array_record"):
        datasets.load("tfds:fashion", "train")


def test_an_image_that_cannot_be_decoded_is_told() -> None:
    rows = [{"image": b"\xff\xd8 no more", "label": 3}]
    source = datasets.Source(datasets.get("sun397"), "train", rows, 1, 64)
    with pytest.raises(DistillError, match="image 0 of sun397 train, train/0, cannot be decoded") as caught:
        source.images([0])
    assert "\n" not in str(caught.value)


def test_examples_are_given_as_they_are_stored() -> None:
    """A loader that decodes only a crop gets the file's bytes, the label, and a name to report."""
    source = datasets.load("fashion", "validation", limit=3)
    image, label, name = source.encoded(1)
    assert isinstance(image, bytes) and image.startswith(b"\x89PNG") and (label, name) == (1, "validation/1")
    named = datasets.Source(source.dataset, "train", [{"image": image, "label": 2, "file_name": b"a.png"}], 1, None)
    assert named.encoded(0) == datasets.Encoded(image, 2, "a.png")
    with pytest.raises(IndexError, match="examples 0 to 2, not 3"):
        source.encoded(3)


def test_a_split_may_lack_only_what_cannot_be_decoded(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFDS leaves one image of sun397 out today and did not once: both are right, any other number is not."""
    for count, allowed in ((919, 1), (918, 1), (920, 1)):
        card = dataclasses.replace(photos(train=count), left_out={"train": allowed})
        monkeypatch.setitem(dataset_source.CARDS, "photos", card)
        if count == 920:
            with pytest.raises(DistillError, match="918 instead of 920 train images"):
                datasets.load("photos", "train")
        else:
            assert len(datasets.load("photos", "train")) == 918
            assert len(datasets.load("photos", "train", limit=count)) == 918
