"""Whether a teacher still knows what it is shown: its accuracy under the crops that students learn from."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import datasets, models, views
from distill_lib.crops import Range
from distill_lib.views import Images

MOST_IMAGES = 10_000  # the first of a split
AT_ONCE = 500


def top1(
    name: str,
    network: nn.Module,
    variables: models.Variables,
    *,
    resolution: int,
    area: Range,
    crops: int = 20,
    batch_size: int = AT_ONCE,
    mock: bool = False,
) -> float:
    """Mean top-1, in [0, 1], over random inception crops with flips.

    Of the first `MOST_IMAGES` test images, `batch_size` at a time without a smaller last part, each is rendered `crops`
    times, at a resolution in pixels, with crops of smallest and largest `area`. Errors as in `datasets.load`.
    """
    count = min(len(datasets.load(name, "test", mock=mock)), MOST_IMAGES)
    images, labels, extents = datasets.arrays(name, "test", count, mock=mock)
    size = min(batch_size, count)

    @jax.jit
    def accuracy(variables: Any, pixels: Images, labels: jax.Array, key: jax.Array) -> jax.Array:
        view = views.sample(key, size, area=area, image_aspect=pixels.aspect())
        logits = models.logits(network, variables, pixels.show(view, resolution, teacher=True))
        return jnp.mean(logits.argmax(-1) == labels)

    shares = []
    for start in range(0, count - size + 1, size):
        part = slice(start, start + size)
        pixels = Images(*jax.tree.map(lambda whole: jnp.asarray(whole[part]), (images, None, extents)))  # noqa: B023
        keys = jax.random.split(jax.random.key(start), crops)
        shares += [accuracy(variables, pixels, jnp.asarray(labels[part]), key) for key in keys]
    return float(np.mean([float(share) for share in shares]))
