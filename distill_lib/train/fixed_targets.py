"""A fixed teacher's outputs for images that are decoded on the way: each image once, before the first step.

`fixed_targets.fixed_logits` does this for images in memory. A mean over many crops of every image is left to it.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from distill_lib import models, sharding, views
from distill_lib.crops import MILD_CROP_SIDE, centred
from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.input_pipeline.stream import Source
from distill_lib.teachers import Teacher
from distill_lib.teachers.teacher import Variables

AT_ONCE = 512  # images that are in memory at a time
TOLD_EVERY = 20 * AT_ONCE  # images
SIDES = {"whole": 1.0, "central": MILD_CROP_SIDE}
"""Views of a fixed teacher that are a single crop: its sides, as fractions of the image's."""


@dataclass(frozen=True)
class Numbered:
    """A source whose labels are the numbers of its examples: what replaces a broken image brings its own number."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def encoded(self, index: int) -> Any:
        """See `stream.Source`."""
        return self.source.encoded(index)._replace(label=index)


def logits(
    teacher: Teacher,
    source: Source,
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
    (box,) = centred(np, 1, SIDES[str(policy.teacher)])
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

    said, variables = [], sharding.on_all_devices(teacher.variables)
    with ThreadPoolExecutor(workers or None) as pool:
        for start in range(0, len(source), AT_ONCE):
            if start % TOLD_EVERY == 0:
                print(f"the teacher's fixed outputs: {start}/{len(source)} images", file=sys.stderr, flush=True)
            found = zip(*pool.map(crop, range(start, min(start + AT_ONCE, len(source)))), strict=True)
            pictures = {size: np.stack(each) for size, each in zip(sizes, found, strict=True)}
            (part,) = sharding.in_parts(pictures, AT_ONCE)
            said.append(np.asarray(answer(variables, part))[: len(pictures[sizes[0]])])
    return np.concatenate(said)


def fixed_logits(
    teacher: Teacher,
    images: np.ndarray,
    policy: views.Policy,
    *,
    resolution: int,
    area: views.Range,
    crops: int,
    temperature: float,
    extents: np.ndarray | None = None,
) -> np.ndarray:
    """Outputs of a fixed teacher, computed once for each image (the paper's `fix/*`).

    A mean over crops is the mean of the predictions at the given temperature; it is returned as logits whose softmax at
    that temperature is this mean.

    Args:
        teacher: the teacher.
        images: (n, height, width, colours) uint8.
        policy: a policy with a fixed teacher.
        resolution: height and width to render at, in pixels.
        area: smallest and largest area of an inception crop, as fractions of the image.
        crops: inception crops of each image, for the mean.
        temperature: T of the distillation loss.
        extents: (n, 2) true height and width of each image in its canvas; None where they fill it.

    Returns:
        (n, classes) float32.
    """
    if policy.teacher is None:
        raise DistillError("a baseline without a teacher has no fixed outputs.")
    mean_over_crops = policy.teacher == "inception_mean"
    crop = "inception" if mean_over_crops else policy.teacher

    @jax.jit
    def answer(variables: Variables, chunk: jax.Array, sizes: jax.Array | None, key: jax.Array) -> jax.Array:
        ratio = views.aspect(chunk, sizes)
        view = views.sample(key, len(chunk), crop=crop, flip=False, area=area, image_aspect=ratio)
        logits = teacher.ensemble.logits(
            variables, lambda size: views.render(chunk, view, size or resolution, sizes), temperature
        )
        return jax.nn.softmax(logits / temperature) if mean_over_crops else logits

    variables = sharding.on_all_devices(teacher.variables)
    count, start, parts = crops if mean_over_crops else 1, 0, []
    for chunk, sizes in sharding.in_parts((images, extents), 512):
        keys = (jax.random.fold_in(jax.random.key(start), number) for number in range(count))
        parts.append(np.asarray(sum(answer(variables, chunk, sizes, each) for each in keys)) / count)
        start += len(chunk)
    means = np.concatenate(parts)[: len(images)]
    return temperature * np.log(np.maximum(means, np.finfo(np.float32).tiny)) if mean_over_crops else means
