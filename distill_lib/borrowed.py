"""Images that installed packages bring along, as training images of another domain; they are never judged by.

digits    handwritten digits of scikit-learn, 8 x 8 pixels, grey
patches   square patches of the photographs in `photographs`, 28 x 28 pixels, in colour

References:
    Alpaydin, Kaynak: "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998 (digits).
"""

from __future__ import annotations

import numpy as np

from distill_lib import photographs
from distill_lib.errors import DistillError, unknown

DIGITS, PATCHES = 1_797, 1_020
PATCH_SIDE = 28  # pixels
_GREYS = 16  # of the digits


def read(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads all images of a set.

    Args:
        name: "digits" or "patches".

    Returns:
        Images uint8 (n, side, side) or (n, side, side, 3), and labels int32 (n,): the digit or the photograph.

    Raises:
        DistillError: if the name is unknown, or the package that ships the images is not installed.
    """
    readers = {"digits": _digits, "patches": _patches}
    if name not in readers:
        raise unknown("set of borrowed images", name, readers)
    return readers[name]()


def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DistillError(
            "scikit-learn is not installed, which ships the digits: pip install scikit-learn."
        ) from error
    found = load_digits()
    images = np.rint(found.images * (255 / _GREYS)).astype(np.uint8)
    return images, found.target.astype(np.int32)


def _patches() -> tuple[np.ndarray, np.ndarray]:
    """Squares at places and of sizes drawn once: from 28 pixels to half of the photograph, shrunk by area."""
    from PIL import Image

    pictures = [Image.fromarray(photographs.load(name)) for name in photographs.FILES]
    bits = np.random.Philox(key=np.array([0, 0], np.uint64)).random_raw(3 * PATCHES).reshape(PATCHES, 3)
    draws = bits / 2.0**64
    images = np.empty((PATCHES, PATCH_SIDE, PATCH_SIDE, 3), np.uint8)
    labels = np.arange(PATCHES, dtype=np.int32) % len(pictures)
    for number, (size, top, left) in enumerate(draws):
        picture = pictures[labels[number]]
        side = PATCH_SIDE + size * (min(picture.size) / 2 - PATCH_SIDE)
        box = left * (picture.width - side), top * (picture.height - side)
        square = (*box, box[0] + side, box[1] + side)
        images[number] = np.asarray(picture.resize((PATCH_SIDE, PATCH_SIDE), Image.Resampling.BOX, square))
    return images, labels
