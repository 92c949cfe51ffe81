"""A teacher under crops: of even images it is right as often as on whole ones, and of others only sometimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import under_crops
from flax import linen as nn

from distill_lib import datasets


class Brightness(nn.Module):
    """Class 0 for dark images and class 1 for bright ones: the same for every crop and flip of an even image."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, colours) to logits (batch, 2)."""
        mean = images.mean(axis=(1, 2, 3))
        return jnp.stack([-mean, mean], axis=-1)


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """Asks `Brightness` about crops of images, in place of those of a data set."""

    def ask(images: np.ndarray, labels: np.ndarray, extents: np.ndarray | None = None, **options: Any) -> float:
        monkeypatch.setattr(datasets, "load", lambda name, split, mock: images)
        whole = datasets.Arrays(images, labels, extents=extents)
        monkeypatch.setattr(datasets, "arrays", lambda name, split, count, mock: whole)
        return under_crops.top1("ours", Brightness(), {}, **options)

    return ask


def test_top1_under_crops_of_even_images_is_top1(shares: Callable[..., float]) -> None:
    """A prediction that no crop changes scores as it does on whole images; a part of a batch is left out."""
    shades = np.array([0, 250, 10, 240, 20, 230, 30, 7], np.uint8)
    images = np.broadcast_to(shades[:, None, None, None], (8, 8, 8, 1))
    labels = np.array([0, 1, 0, 0, 1, 1, 1, 1])  # right: 0, 1, 2, 5 of the first six; 6 and 7 are left out
    share = shares(images, labels, resolution=8, area=(0.25, 1.0), crops=3, batch_size=3)
    assert share == pytest.approx(4 / 6)


def test_top1_under_crops_sees_nothing_beyond_an_image_in_its_canvas(shares: Callable[..., float]) -> None:
    """Dark images in the corner of a bright canvas are dark under every crop."""
    images, labels = np.full((4, 12, 12, 1), 255, np.uint8), np.zeros(4, int)
    images[:, :6, :8] = 0
    options: dict = {"resolution": 4, "area": (0.3, 1.0), "crops": 5}
    assert shares(images, labels, np.full((4, 2), (6, 8), np.int32), **options) == 1
    assert shares(images, labels, **options) < 1


def test_top1_under_crops_looks_at_crops(shares: Callable[..., float]) -> None:
    """A prediction that depends on what is cropped is right sometimes only, and other numbers of crops differ."""
    images = np.zeros((4, 16, 16, 1), np.uint8)
    images[:, :, :7] = 255  # the left part is bright: small crops see it or do not see it
    share = shares(images, np.ones(4, int), resolution=4, area=(0.05, 0.3), crops=20)
    assert 0.2 < share < 0.8


def test_teachers_are_tried_under_crops_of_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large set the first test images alone are decoded."""
    monkeypatch.setattr(under_crops, "MOST_IMAGES", 5)
    seen, decode = [], datasets.arrays
    monkeypatch.setattr(datasets, "arrays", lambda *names, **options: seen.append(names) or decode(*names, **options))
    model, variables = tiny.linear(102, 8 * 8 * 3)
    share = under_crops.top1("flowers", model, variables, resolution=8, area=(0.05, 1.0), mock=True)
    assert seen == [("flowers", "test", 5)] and 0 <= share <= 1
