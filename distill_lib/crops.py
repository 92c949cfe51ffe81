"""Crops from uniform random numbers: the same arithmetic for NumPy (`stream`) and for JAX (`views`)."""

from typing import Any

MILD_CROP_SIDE = 0.8  # the paper's "resize to 160, crop 128"
CROP_ATTEMPTS = 10
DRAWS = 6 + CROP_ATTEMPTS  # random numbers an image: whole, flip, lambda, top, left, height, aspects
NO_POSITION = 2**32 - 1  # folded into a step's key for a second, independent draw; no batch is that large
CROPS = ("whole", "central", "mild", "inception")

Range = tuple[float, float]


def centred(xp: Any, batch_size: int, side: float) -> Any:
    """Boxes (batch, 4) of a central rectangle that has `side` of both sides of the image."""
    corner = (1 - side) / 2
    return xp.broadcast_to(xp.array([corner, corner, side, side], xp.float32), (batch_size, 4))


def draw(
    xp: Any,
    uniform: Any,
    image_aspect: Any,
    *,
    crop: str,
    flip: bool,
    area: Range = (0.05, 1.0),
    aspect: Range = (3 / 4, 4 / 3),
    whole: float = 0.0,
) -> tuple[Any, Any]:
    """Boxes (batch, 4) float32, top, left, height and width as fractions of the image, and what is mirrored, bool.

    `xp` is `numpy` or `jax.numpy`, and `uniform` (batch, DRAWS) float32 in [0, 1), as of `views.numbers`. Options are
    those of `views.sample`; `image_aspect` is width / height of the images, (batch,) float32.
    """
    box = _boxes(xp, uniform[:, 3:], crop, area, aspect, image_aspect)
    if whole:
        box = xp.where(uniform[:, :1] < whole, centred(xp, len(box), 1.0), box)
    return box, uniform[:, 1] < 0.5 if flip else xp.zeros(len(box), bool)


def _boxes(xp: Any, uniform: Any, crop: str, area: Range, aspect: Range, ratio: Any) -> Any:
    batch_size = uniform.shape[0]
    if crop == "whole":
        return centred(xp, batch_size, 1.0)
    if crop == "central":
        return centred(xp, batch_size, MILD_CROP_SIDE)
    if crop == "mild":
        extent = xp.full((batch_size, 2), MILD_CROP_SIDE, xp.float32)
    else:
        # As TensorFlow's sample_distorted_bounding_box: the aspect is uniform, then the *height* between those of the
        # smallest and the largest allowed area that fits. After as many aspects that do not fit the image is whole.
        aspects = (aspect[0] + (aspect[1] - aspect[0]) * uniform[:, 3:]) / ratio[:, None]
        smallest = xp.sqrt(area[0] / aspects)
        largest = xp.minimum(xp.sqrt(area[1] / aspects), xp.minimum(1.0, 1.0 / aspects))
        fits = smallest <= largest
        heights = smallest + (largest - smallest) * uniform[:, 2:3]
        extents = xp.minimum(xp.stack([heights, heights * aspects], axis=-1), 1.0)
        chosen = xp.take_along_axis(extents, xp.argmax(fits, axis=1)[:, None, None], axis=1)[:, 0]
        extent = xp.where(fits.any(axis=1, keepdims=True), chosen, 1.0)
    return xp.concatenate([uniform[:, :2] * (1 - extent), extent], axis=-1)
