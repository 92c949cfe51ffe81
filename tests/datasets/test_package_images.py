"""Images of installed packages: the same on every machine, and of the form that data sets have."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distill_lib import datasets, recipes
from distill_lib.datasets import package_images
from distill_lib.errors import DistillError


@pytest.mark.parametrize(("name", "shape"), [("digits", (1_797, 8, 8)), ("patches", (1_020, 28, 28, 3))])
def test_they_are_what_their_cards_say(name: str, shape: tuple[int, ...]) -> None:
    """Number, side, colours and classes; every class occurs."""
    images, labels = package_images.read(name)
    card = datasets.get(name)
    assert images.shape == shape and images.dtype == np.uint8
    assert card.counts == {"train": len(images)} and card.size == shape[1]
    assert card.channels == (shape[3] if len(shape) == 4 else 1)
    assert set(labels) == set(range(card.num_classes))
    assert images.min() < 10 and images.max() > 245


def test_patches_are_drawn_once() -> None:
    """From fixed numbers: two calls and two machines show students the same images."""
    images = package_images.read("patches")[0]
    np.testing.assert_array_equal(images, package_images.read("patches")[0])
    assert len({hashlib.sha256(image.tobytes()).hexdigest() for image in images}) > 1_000


@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_read_in_the_colours_of_another_set(channels: int) -> None:
    """Grey becomes colour and colour grey, so that they can be shown to any student."""
    for name in ("digits", "patches"):
        arrays = datasets.arrays(name, "train", 4, channels=channels)
        assert arrays.images.shape[-1] == channels and len(arrays.images) == 4


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(package_images.SHEET["coffee"], "package", "no_such_package")
    with pytest.raises(DistillError, match="no_such_package is not installed"):
        package_images.read("patches")


def test_photographs_to_be_judged_by_are_others_than_those_to_learn_from() -> None:
    """Every photograph is of one split and is there; no image has a label; the first images are of one photograph."""
    card, files = datasets.get("photographs"), [row["file"] for row in package_images.SHEET.values()]
    assert len(set(files)) == len(files)
    for split, count in card.counts.items():
        of_split = [name for name, row in package_images.SHEET.items() if row["split"] == split]
        images, labels = package_images.read("photographs", split)
        assert images.shape == (count, card.size, card.size, 3) and labels.shape == (count, 0)
        own = images.reshape(len(of_split), -1, *images.shape[1:]).mean(axis=(1, 2, 3))
        whole = np.array([package_images.load(name).mean(axis=(0, 1)) for name in of_split])
        assert np.abs(own - whole).max() < 40 and np.abs(own - whole).mean() < 12
    assert not datasets.arrays("photographs", "test").labels.any()
    assert all(row["licence"] and row["source"] for row in package_images.SHEET.values())


def test_labels_that_there_are_not_are_no_target() -> None:
    for settings in ({"policy": "labels"}, {"label_share": 0.5}):
        with pytest.raises(DistillError, match="photographs has no labels to learn from: choose a policy with a"):
            recipes.get("photographs", "crops", **settings)
