"""Batches of crops for sets that do not fit into memory: images are decoded when they are needed, by threads.

A batch is a function of (seed, step) here as on the device: `sampler.batch_indices` says which examples it has, and
`views.numbers` how each is cropped, to 2**-22 of the image, since XLA fuses multiplications and additions. Mixup is
left to the device.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass

import jax
import numpy as np

from distill_lib import crops, views
from distill_lib.datasets import Encoded, Source, decode
from distill_lib.errors import DistillError, logger, unknown
from distill_lib.input_pipeline import sampler
from distill_lib.recipes import Recipe
from distill_lib.views import Crops

ON_BAD_IMAGE = ("substitute", "raise")
ATTEMPTS = 100  # images that are tried in place of a broken one
CHUNK = 64  # images that a worker makes at once, at most
AHEAD = 2  # batches that threads make in advance

_Broken = tuple[int, str, str]  # number of an example, name and reason
_Task = Callable[[], list[_Broken]]


def batches(
    source: Source,
    recipe: Recipe,
    start_step: int = 0,
    *,
    teacher_sizes: Iterable[int] = (),
    targets: np.ndarray | None = None,
    rows: slice = slice(None),
    workers: int | None = None,
    on_bad_image: str = ON_BAD_IMAGE[0],
    bad: dict[int, str] | None = None,
) -> Generator[tuple[int, Crops]]:
    """Streams steps from one on, numbers and what is shown, NumPy arrays: endless; closing it ends the threads.

    A teacher is shown `teacher_sizes` in pixels, and its crops are left out where they are the student's. `targets`
    (examples, classes) replace the labels. Of a batch `rows` are made, read by `workers` threads (see `crew`). Of a
    broken image `bad` is given its name by its number; "substitute" warns and shows the next one instead, "raise" is a
    DistillError, as is a wrong name or number, at once.
    """
    if on_bad_image not in ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, ON_BAD_IMAGE)
    sampler.batch_indices(recipe.order_seed, start_step, recipe.batch_size, len(source))  # tells bad numbers now
    shared = set() if views.policy(recipe.policy).relation == "independent" else {recipe.resolution}
    sizes = sorted(set(teacher_sizes) - shared)
    maker = _Maker(source, recipe, range(recipe.batch_size)[rows], sizes, targets)
    bad = {} if bad is None else bad

    def note(number: int, name: str, reason: str) -> None:
        what = f"image {number}, {name}, cannot be decoded ({reason})"
        if on_bad_image == "raise":
            raise DistillError(f'{what}: replace the file, or choose on_bad_image="substitute".')
        if number not in bad:
            bad[number] = name
            logger.warning("%s; the next one is shown instead", what)

    return _in_order(maker, start_step, crew(workers), note)


def crew(workers: int | None) -> int:
    """How many workers decode: one for each core where no number is given; raises DistillError for one below 0."""
    if workers is not None and workers < 0:
        raise DistillError(f"workers must not be negative, got {workers}: 0 decodes without any.")
    return cores() if workers is None else workers


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(
    maker: _Maker, start_step: int, workers: int, note: Callable[[int, str, str], None]
) -> Generator[tuple[int, Crops]]:
    size = min(CHUNK, -(-len(maker.rows) // max(workers, 1)))
    pool = futures.ThreadPoolExecutor(max(workers, 1), "stream")  # starts a thread only when it is given something
    ahead = collections.deque[tuple[list[np.ndarray], list[_Task]]]()
    exiting = sys.is_finalizing  # held: then modules are gone, and their threads with them
    try:
        for step in itertools.count(start_step):
            space, numbers, tasks = maker.space(), maker.numbers(step), list[_Task]()
            for begin in range(0, len(maker.rows), size):
                part = [array[begin : begin + size] for array in space]
                fill = functools.partial(maker.fill, step, begin + maker.rows.start, numbers, part)
                tasks.append(pool.submit(fill).result if workers else fill)
            ahead.append((space, tasks))
            if workers and len(ahead) <= AHEAD:
                continue
            (targets, student, *teacher), tasks = ahead.popleft()
            for broken in sorted(itertools.chain.from_iterable([task() for task in tasks])):
                note(*broken)
            yield step - len(ahead), Crops(student, dict(zip(maker.teacher_sizes, teacher, strict=True)), targets)
    finally:
        if not exiting():
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Maker:
    """Batches in chunks, each read, drawn, decoded and cropped from its number alone."""

    source: Source
    recipe: Recipe
    rows: range  # of the batch that are made
    teacher_sizes: Sequence[int]
    targets: np.ndarray | None

    def space(self) -> list[np.ndarray]:
        """New memory for a step: targets (n, ...), and for student and teacher uint8 (n, size, size, channels)."""
        count, channels, given = len(self.rows), self.source.dataset.channels, self.targets
        targets = np.empty(count, np.int32) if given is None else np.empty((count, *given.shape[1:]), given.dtype)
        sizes = (self.recipe.resolution, *self.teacher_sizes)
        return [targets, *(np.empty((count, size, size, channels), np.uint8) for size in sizes)]

    def numbers(self, step: int) -> tuple[np.ndarray, ...]:
        """What views are drawn from in a step, the teacher's too where they are its own; on the host where JAX may."""
        independent = views.policy(self.recipe.policy).relation == "independent"
        with jax.default_device(_host()):
            key = jax.random.fold_in(views.view_key(self.recipe.order_seed), np.int32(step))
            return jax.device_get(_numbers(key, self.recipe.batch_size, independent))

    def fill(self, step: int, begin: int, numbers: tuple[np.ndarray, ...], space: list[np.ndarray]) -> list[_Broken]:
        """Writes the images of a step from a position of the batch on, and tells which are broken and replaced."""
        targets, *pictures = space
        recipe, count = self.recipe, len(self.source)
        first = sampler.batch_indices(recipe.order_seed, step, recipe.batch_size, count)[begin:]
        broken, places = list[_Broken](), list(range(len(targets)))
        for tried in range(min(ATTEMPTS, count)):
            indices = {place: int(first[place] + tried) % count for place in places}
            examples, ratios = dict[int, Encoded](), list[float]()
            for place in places:
                examples[place] = self.source.encoded(indices[place])
                try:
                    height, width = decode.sides(examples[place].image)
                    ratios.append(width / height)
                except decode.ImageError as error:
                    broken.append((indices[place], examples.pop(place).name, str(error)))
            drawn = np.array([begin + place for place in examples], int)
            looks = self._looks([each[drawn] for each in numbers], np.array(ratios, np.float32))
            for (place, example), image_looks in zip(examples.items(), looks, strict=True):
                try:
                    crops = decode.crops(example.image, image_looks, self.source.dataset.channels)
                except decode.ImageError as error:
                    broken.append((indices[place], example.name, str(error)))
                    continue
                for picture, crop in zip(pictures, crops, strict=True):
                    picture[place] = crop
                targets[place] = example.label if self.targets is None else self.targets[indices[place]]
                places.remove(place)
            if not places:
                return broken
        _, name, reason = broken[-1]
        raise DistillError(f"none of {tried + 1} images up to {name} can be decoded ({reason}): check the data set.")

    def _looks(self, numbers: Sequence[np.ndarray], ratios: np.ndarray) -> Iterable[tuple[decode.Look, ...]]:
        """For each image the looks at it, drawn of all at once: NumPy is slow at single numbers."""
        recipe, policy = self.recipe, views.policy(self.recipe.policy)
        draw = functools.partial(crops.draw, np, flip=policy.flip, area=recipe.crop_area, whole=recipe.whole)
        student = teacher = draw(numbers[0], ratios, crop=policy.student)
        if policy.relation == "independent":
            teacher = draw(numbers[1], ratios, crop=str(policy.teacher))
        drawn = [(student, recipe.resolution), *((teacher, size) for size in self.teacher_sizes)]
        looks = [
            [decode.Look(box, flip, size) for box, flip in zip(*(each.tolist() for each in view), strict=True)]
            for view, size in drawn
        ]
        return zip(*looks, strict=True)


@functools.partial(jax.jit, static_argnames=("batch_size", "independent"))
def _numbers(key: jax.Array, batch_size: int, independent: bool) -> tuple[jax.Array, ...]:
    keys = (key, views.teacher_key(key)) if independent else (key,)
    return tuple(views.numbers(each, batch_size) for each in keys)


def _host() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to use accelerators alone
        return None
