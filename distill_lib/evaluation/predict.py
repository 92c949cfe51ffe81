"""How good a student is, and how faithful to its teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from distill_lib import models, sharding, views
from distill_lib.errors import DistillError
from distill_lib.input_pipeline.splits import Split
from distill_lib.models.ensemble import Ensemble
from distill_lib.pixels import Pixels

LARGEST_LOGIT = 1e30  # sums over images of larger ones overflow in float32


class NotFiniteError(DistillError):
    """A network's answers are not numbers, as those of a student that diverged."""


def predict(
    network: nn.Module | Ensemble,
    variables: Any,
    split: Split,
    *,
    resolution: int,
    side: float = 1.0,
    count: int | None = None,
    output: str = "logits",
    batch_size: int = 500,
) -> np.ndarray:
    """What a network says of the evaluation view of images.

    Args:
        network: the module that predicts, or a teacher's ensemble.
        variables: of the network.
        split: the images.
        resolution: height and width to render at in pixels, where the network does not have its own.
        side: side of the central square that is shown, as a fraction of the shorter side.
        count: the first so many images; None takes all.
        output: "logits", or "features": what the last layer is given.
        batch_size: images at a time, over all devices.

    Returns:
        Logits (n, classes) or features (n, width), float32.
    """
    count = min(len(split), count or len(split))
    answer = _program(network, resolution, side, output)
    sizes = network.sizes(resolution) if isinstance(network, Ensemble) else [resolution]
    variables = sharding.on_all_devices(variables)
    parts = [sharding.fetch(answer(variables, part)) for part in split.parts(side, sizes, batch_size, count=count)]
    return np.concatenate(parts)[:count]


@functools.lru_cache(maxsize=64)
def _program(network: nn.Module | Ensemble, resolution: int, side: float, output: str) -> Callable[..., jax.Array]:
    @jax.jit
    def answer(variables: Any, pixels: Pixels) -> jax.Array:
        count = len(jax.tree.leaves(pixels)[0])
        view = views.still(count, side=side, image_aspect=pixels.aspect())
        show = lambda size: pixels.show(view, size or resolution, teacher=True)  # noqa: E731
        return output_of(network, output)(variables, show)

    return answer


def output_of(
    model: nn.Module | Ensemble, output: str
) -> Callable[[Any, Callable[[int | None], jax.Array]], jax.Array]:
    """The function of variables, and of what shows images at a size (None: the network's own), to `output`."""
    if isinstance(model, Ensemble):
        return model.features if output == "features" else model.logits
    ask = models.penultimate if output == "features" else models.logits
    return lambda variables, show: ask(model, variables, show(None))
