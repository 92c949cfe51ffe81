"""Images of installed packages: the same on every machine, and of the form that data sets have."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distill_lib import datasets
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
    monkeypatch.setitem(package_images.FILES, "coffee", ("no_such_package", "coffee.png"))
    with pytest.raises(DistillError, match="no_such_package is not installed"):
        package_images.read("patches")
