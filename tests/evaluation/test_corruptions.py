"""Corruptions: the same each time, stronger with severity, of the images' own kind."""

from __future__ import annotations

import numpy as np
import pytest

from distill_lib import datasets
from distill_lib.errors import DistillError
from distill_lib.evaluation import corruptions

IMAGES = datasets.arrays("fashion", "test", 40).images


@pytest.mark.parametrize("family", corruptions.FAMILIES)
def test_every_severity_takes_an_image_further_from_what_it_was(family: str) -> None:
    """On average over images; and once more, it is the same."""
    changed = [corruptions.corrupt(IMAGES, family, severity) for severity in corruptions.SEVERITIES]
    assert all(images.shape == IMAGES.shape and images.dtype == np.uint8 for images in changed)
    distances = [float(np.abs(images.astype(float) - IMAGES).mean()) for images in changed]
    assert distances[0] > 0 and distances == sorted(set(distances))
    np.testing.assert_array_equal(corruptions.corrupt(IMAGES, family, 3), changed[2])


@pytest.mark.parametrize("family", corruptions.FAMILIES)
def test_images_may_be_of_colour(family: str) -> None:
    grey = np.repeat(IMAGES[:4], 3, axis=-1)
    assert corruptions.corrupt(grey, family, 2).shape == grey.shape


@pytest.mark.parametrize("family", ["noise", "rotation", "shift", "occlusion"])
def test_chance_is_that_of_the_seed(family: str) -> None:
    assert (corruptions.corrupt(IMAGES, family, 3) != corruptions.corrupt(IMAGES, family, 3, seed=1)).any()


def test_a_shift_moves_every_image_whole_pixels_in_one_direction() -> None:
    spot = np.zeros((30, 28, 28, 1), np.uint8)
    spot[:, 14, 14] = 255
    moved = corruptions.corrupt(spot, "shift", 3)
    places = {tuple(np.argwhere(image[..., 0] == 255)[0] - 14) for image in moved}
    assert places == {(3, 0), (-3, 0), (0, 3), (0, -3)}


@pytest.mark.parametrize(("family", "severity"), [("snow", 1), ("noise", 0), ("noise", 6)])
def test_what_is_no_corruption_is_told(family: str, severity: int) -> None:
    with pytest.raises(DistillError, match=r"unknown corruption 'snow'|a severity from 1 to 5, not"):
        corruptions.corrupt(IMAGES, family, severity)
