"""A fixed teacher's outputs for images that are decoded on the way: each image once, before the first step.

`teachers.fixed_logits` does this for images in memory. A mean over many crops of every image is left to it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from distill_lib import boxes, chunks, decode, models, sharding, views
from distill_lib.teachers import Teacher

AT_ONCE = 512  # images that are in memory at a time
TOLD_EVERY = 20 * AT_ONCE  # images
SIDES = {"whole": 1.0, "central": boxes.MILD_CROP_SIDE}
"""Views of a fixed teacher that are a single crop: its sides, as fractions of the image's."""


@dataclass(frozen=True)
class Numbered:
    """A source whose labels are the numbers of its examples: what replaces a broken image brings its own number."""

    source: chunks.Source

    def __len__(self) -> int:
        return len(self.source)

    def encoded(self, index: int) -> Any:
        """See `chunks.Source`."""
        return self.source.encoded(index)._replace(label=index)


def logits(
    teacher: Teacher,
    source: chunks.Source,
    policy: views.Policy,
    *,
    resolution: int,
    channels: int,
    temperature: float,
    workers: int | None = None,
) -> np.ndarray:
    """Outputs of a fixed teacher for every image, from the original files.

    Args:
        teacher: the teacher.
        source: the images.
        policy: a policy whose teacher's view is one of `SIDES`.
        resolution: height and width in pixels of what it is shown, if it does not want another size.
        channels: 1 or 3.
        temperature: T of the distillation loss, at which several teachers agree.
        workers: threads that decode; None and 0 take as many as Python thinks fit.

    Returns:
        (n, classes) float32. For an image that cannot be decoded, what is said of a black one: `stream` never shows it.
    """
    (box,) = boxes.centred(np, 1, SIDES[str(policy.teacher)])
    sizes = sorted({member.resolution or resolution for member in teacher.ensemble.members})
    looks = [decode.Look(box, False, size) for size in sizes]

    @jax.jit
    def answer(variables: tuple[models.Variables, ...], crops: dict[int, jax.Array]) -> jax.Array:
        shown = {size: views.normalize(pictures) for size, pictures in crops.items()}
        return teacher.ensemble.logits(variables, lambda size: shown[size or resolution], temperature)

    def crop(index: int) -> tuple[np.ndarray, ...]:
        try:
            return decode.crops(source.encoded(index).image, looks, channels)
        except decode.ImageError:  # told when its turn comes
            return tuple(np.zeros((size, size, channels), np.uint8) for size in sizes)

    said, variables = [], jax.device_put(teacher.variables, sharding.everywhere(sharding.data_mesh()))
    with ThreadPoolExecutor(workers or None) as pool:
        for start in range(0, len(source), AT_ONCE):
            if start % TOLD_EVERY == 0:
                print(f"the teacher's fixed outputs: {start}/{len(source)} images", file=sys.stderr, flush=True)
            found = zip(*pool.map(crop, range(start, min(start + AT_ONCE, len(source)))), strict=True)
            pictures = {size: np.stack(each) for size, each in zip(sizes, found, strict=True)}
            (part,) = sharding.in_parts(pictures, AT_ONCE)
            said.append(np.asarray(answer(variables, part))[: len(pictures[sizes[0]])])
    return np.concatenate(said)
