"""How good a student is, and how faithful to its teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models, sharding, views
from distill_lib.errors import DistillError
from distill_lib.models.ensemble import Ensemble

LARGEST_LOGIT = 1e30  # sums over images of larger ones overflow in float32


class NotFiniteError(DistillError):
    """A network's answers are not numbers, as those of a student that diverged."""


@functools.lru_cache(maxsize=64)
def predictor(
    model: nn.Module | Ensemble, *, resolution: int, side: float = 1.0, batch_size: int = 500, output: str = "logits"
) -> Callable[..., np.ndarray]:
    """Builds a function that predicts the evaluation view of images; a second call with the same arguments is free.

    Args:
        model: the module that predicts, or a teacher's ensemble.
        resolution: height and width to render at, in pixels.
        side: side of the central square that is shown, as a fraction of the shorter side.
        batch_size: images at a time, over all devices; the last ones are padded, so that one program is compiled.
        output: "logits", or "features": what the last layer is given.

    Returns:
        A function of variables, images (n, height, width, colours) uint8, and their true (n, 2) extents where they do
        not fill their canvas, to logits (n, classes) or features (n, width), float32.
    """

    @jax.jit
    def one(variables: Any, chunk: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        images, extents = chunk
        view = views.still(images.shape[0], side=side, image_aspect=views.aspect(images, extents))
        return _answer(model, output)(variables, lambda size: views.render(images, view, size or resolution, extents))

    def predict(variables: Any, images: np.ndarray, extents: np.ndarray | None = None) -> np.ndarray:
        return _in_parts(one, variables, (images, extents), batch_size)

    return predict


@functools.lru_cache(maxsize=64)
def crop_predictor(
    model: nn.Module | Ensemble, *, resolution: int, batch_size: int = 500, output: str = "logits"
) -> Callable[[Any, dict[int, np.ndarray]], np.ndarray]:
    """As `predictor`, for evaluation views that were cropped before.

    Returns:
        A function of variables, and crops (n, size, size, colours) uint8 by size, to logits (n, classes) or features
        (n, width), float32.
    """

    @jax.jit
    def one(variables: Any, chunk: dict[int, jax.Array]) -> jax.Array:
        return _answer(model, output)(variables, lambda size: views.normalize(chunk[size or resolution]))

    def predict(variables: Any, crops: dict[int, np.ndarray]) -> np.ndarray:
        return _in_parts(one, variables, crops, batch_size)

    return predict


def _in_parts(predict: Callable[[Any, Any], jax.Array], variables: Any, examples: Any, batch_size: int) -> np.ndarray:
    """Predicts a tree of arrays with a common leading axis, a few examples at a time, each device its share of them."""
    variables = sharding.on_all_devices(variables)
    parts = [np.asarray(predict(variables, part)) for part in sharding.in_parts(examples, batch_size)]
    return np.concatenate(parts)[: len(jax.tree.leaves(examples)[0])]


def _answer(model: nn.Module | Ensemble, output: str) -> Callable[[Any, Callable[[int | None], jax.Array]], jax.Array]:
    if isinstance(model, Ensemble):
        return model.features if output == "features" else model.logits
    ask = models.penultimate if output == "features" else models.logits
    return lambda variables, show: ask(model, variables, show(None))


def top1_under_crops(
    model: nn.Module | Ensemble,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    resolution: int,
    area: views.Range,
    crops: int = 20,
    batch_size: int = 500,
    extents: np.ndarray | None = None,
) -> float:
    """Mean top-1 over random inception crops with flips: whether a teacher still knows what students will be shown.

    Args:
        model: the module that predicts, or a teacher's ensemble.
        variables: of the model.
        images: (n, height, width, colours) uint8; a last part smaller than a batch is left out.
        labels: (n,) integer classes.
        resolution: height and width to render at, in pixels.
        area: smallest and largest area of a crop, as fractions of the image.
        crops: views of each image.
        batch_size: images at a time.
        extents: (n, 2) true height and width of each image in its canvas, in pixels; None where they fill it.

    Returns:
        A share in [0, 1].
    """
    size, answer = min(batch_size, len(images)), _answer(model, "logits")

    @jax.jit
    def right(
        variables: Any, chunk: jax.Array, sizes: jax.Array | None, wanted: jax.Array, key: jax.Array
    ) -> jax.Array:
        view = views.sample(key, size, area=area, image_aspect=views.aspect(chunk, sizes))
        found = answer(variables, lambda side: views.render(chunk, view, side or resolution, sizes))
        return jnp.mean(found.argmax(-1) == wanted)

    shares = []
    for start in range(0, len(images) - size + 1, size):
        part = slice(start, start + size)
        chunk, wanted = jnp.asarray(images[part]), jnp.asarray(labels[part])
        sizes = None if extents is None else jnp.asarray(extents[part])
        keys = jax.random.split(jax.random.key(start), crops)
        shares += [right(variables, chunk, sizes, wanted, key) for key in keys]
    return float(np.mean([float(share) for share in shares]))
