"""Images as they come when something went wrong: noise, blur, light, place and compression, at five severities.

Families are those that the benchmarks have in common (Hendrycks and Dietterich, ICLR 2019, section 4.1; Mu and Gilmer,
"MNIST-C", 2019, section 2). Strengths are this library's, for images of a few dozen pixels, set before any network was
asked: severity 1 is hardly seen, 5 leaves what a person still names.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from distill_lib.errors import DistillError, unknown

Pixels = NDArray[np.float32]  # (n, height, width, channels), from 0 (black) to 1
Corruption = Callable[[Pixels, float, np.random.Generator], Pixels]

SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: NDArray[np.uint8], family: str, severity: int, seed: int = 0) -> NDArray[np.uint8]:
    """Corrupts images uint8 (n, height, width, channels) by a `FAMILIES` and `SEVERITIES`; DistillError for others."""
    if family not in FAMILIES:
        raise unknown("corruption", family, FAMILIES)
    if severity not in SEVERITIES:
        raise DistillError(f"a corruption has a severity from {SEVERITIES[0]} to {SEVERITIES[-1]}, not {severity}.")
    function, strengths = FAMILIES[family]
    random = np.random.default_rng([seed, [*FAMILIES].index(family), severity])
    corrupted = function(np.asarray(images / 255, np.float32), strengths[severity - 1], random)
    return np.round(255 * corrupted.clip(0, 1)).astype(np.uint8)


def _noise(images: Pixels, deviation: float, random: np.random.Generator) -> Pixels:
    return images + deviation * random.standard_normal(images.shape, np.float32)


def _blur(images: Pixels, pixels: float, _: np.random.Generator) -> Pixels:
    return ndimage.gaussian_filter(images, (0, pixels, pixels, 0))


def _contrast(images: Pixels, share: float, _: np.random.Generator) -> Pixels:
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + share * (images - mean)


def _brightness(images: Pixels, added: float, _: np.random.Generator) -> Pixels:
    return images + added


def _rotation(images: Pixels, degrees: float, random: np.random.Generator) -> Pixels:
    """To the left or to the right; what comes in from outside is black."""
    left = random.random(len(images)) < 0.5
    turned = np.empty_like(images)
    for side, angle in ((left, degrees), (~left, -degrees)):
        turned[side] = ndimage.rotate(images[side], angle, axes=(1, 2), reshape=False, order=1)
    return turned


def _shift(images: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """By whole pixels, a share of the side, up, down, left or right; what comes in from outside is black."""
    towards, by = random.integers(4, size=len(images)), round(share * images.shape[1])
    moved = np.empty_like(images)
    for direction, (down, right) in enumerate(((by, 0), (-by, 0), (0, by), (0, -by))):
        own = towards == direction
        moved[own] = ndimage.shift(images[own], (0, down, right, 0), order=0)
    return moved


def _occlusion(images: Pixels, share: float, random: np.random.Generator) -> Pixels:
    """A grey square, its side a share of the image's, anywhere in it."""
    side, size = images.shape[1], round(share * images.shape[1])
    top, left = random.integers(side - size + 1, size=(2, len(images), 1))
    rows, columns = ((start <= np.arange(side)) & (np.arange(side) < start + size) for start in (top, left))
    return np.where((rows[:, :, None] & columns[:, None, :])[..., None], np.float32(0.5), images)


def _jpeg(images: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    compressed = np.empty_like(images)
    for place, image in enumerate(np.round(255 * images).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=int(quality))
        compressed[place] = np.asarray(Image.open(file), np.float32).reshape(image.shape) / 255
    return compressed


FAMILIES: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),  # standard deviation, of a white of 1
    "blur": (_blur, (0.5, 0.75, 1.0, 1.25, 1.5)),  # standard deviation in pixels
    "contrast": (_contrast, (0.75, 0.6, 0.45, 0.3, 0.15)),  # share that is left
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),  # added
    "rotation": (_rotation, (5, 10, 15, 22, 30)),  # degrees
    "shift": (_shift, (0.04, 0.07, 0.11, 0.14, 0.18)),  # share of the side: 1 to 5 of 28 pixels
    "occlusion": (_occlusion, (0.15, 0.25, 0.35, 0.45, 0.55)),  # share of the side
    "JPEG": (_jpeg, (50, 30, 18, 10, 5)),  # quality
}
"""What makes each family, and its strength at each severity."""
