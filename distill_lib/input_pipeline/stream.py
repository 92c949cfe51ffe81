"""Batches of crops for sets that do not fit into memory: images are decoded when they are needed, by threads.

A batch is a function of (seed, step) here as on the device: `sampler.batch_indices` says which examples it has, and
`host_views` how each is cropped. Mixup is left to the device.
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
from typing import NamedTuple

import numpy as np

from distill_lib import crops, views
from distill_lib.datasets import Encoded, Source, decode
from distill_lib.errors import DistillError, logger, unknown
from distill_lib.input_pipeline import host_views, sampler

ON_BAD_IMAGE = ("substitute", "raise")
ATTEMPTS = 100  # images that are tried in place of a broken one
CHUNK = 64  # images that a worker makes at once, at most
AHEAD = 2  # batches that threads make in advance


class Batch(NamedTuple):
    """Number of a step, labels int32 (n,), and pictures uint8 (n, size, size, channels), the teacher's by size."""

    step: int
    labels: np.ndarray
    student: np.ndarray
    teacher: dict[int, np.ndarray]


_Broken = tuple[int, str, str]  # number of an example, name and reason
_Task = Callable[[], list[_Broken]]


def batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    student_size: int,
    teacher_sizes: tuple[int, ...] = (),
    start_step: int = 0,
    policy: str = "same/ic",
    area: crops.Range = (0.05, 1.0),
    whole: float = 0.0,
    channels: int = 3,
    numbered: bool = False,
    rows: slice = slice(None),
    workers: int | None = None,
    on_bad_image: str = ON_BAD_IMAGE[0],
    bad: dict[int, str] | None = None,
) -> Generator[Batch]:
    """Streams the crops that teacher and student are shown, from a step on: endless; closing it ends the threads.

    Crops of `policy`, `area` and `whole` (see `views`) have `channels` colours, and `student_size` or each of
    `teacher_sizes` pixels a side; of a batch `rows` are made, read by `workers` threads (see `crew`). Labels may be the
    numbers of the examples (`numbered`). Of a broken image `bad` is given its name by its number; "substitute" warns
    and shows the next one instead, "raise" is a DistillError, as is a wrong name or number, at once.
    """
    row = views.policy(policy)
    if on_bad_image not in ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, ON_BAD_IMAGE)
    sampler.batch_indices(seed, start_step, batch_size, len(source))  # tells bad numbers now
    draw = functools.partial(host_views.sample, flip=row.flip, area=area, whole=whole)
    draws = [functools.partial(draw, crop=row.student)]
    if row.relation == "independent":
        draws.append(functools.partial(draw, crop=str(row.teacher), independent=True))
    looks = list(dict.fromkeys([(0, student_size), *((len(draws) - 1, size) for size in teacher_sizes)]))
    maker = _Maker(source, seed, batch_size, range(batch_size)[rows], draws, looks, channels, numbered)
    teacher = {size: looks.index((len(draws) - 1, size)) for size in teacher_sizes}
    bad = {} if bad is None else bad

    def note(number: int, name: str, reason: str) -> None:
        what = f"image {number}, {name}, cannot be decoded ({reason})"
        if on_bad_image == "raise":
            raise DistillError(f'{what}: replace the file, or choose on_bad_image="substitute".')
        if number not in bad:
            bad[number] = name
            logger.warning("%s; the next one is shown instead", what)

    return _in_order(maker, start_step, crew(workers), teacher, note)


def crew(workers: int | None) -> int:
    """How many workers decode: one for each core where no number is given; raises DistillError for one below 0."""
    if workers is not None and workers < 0:
        raise DistillError(f"workers must not be negative, got {workers}: 0 decodes without any.")
    return cores() if workers is None else workers


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(
    maker: _Maker, start_step: int, workers: int, teacher: dict[int, int], note: Callable[[int, str, str], None]
) -> Generator[Batch]:
    size = min(CHUNK, -(-len(maker.rows) // max(workers, 1)))
    pool = futures.ThreadPoolExecutor(max(workers, 1), "stream")  # starts a thread only when it is given something
    ahead = collections.deque[tuple[list[np.ndarray], list[_Task]]]()
    exiting = sys.is_finalizing  # held: then modules are gone, and their threads with them
    try:
        for step in itertools.count(start_step):
            space, tasks = maker.space(), list[_Task]()
            for begin in range(0, len(maker.rows), size):
                fill = functools.partial(maker.fill, step, begin, [array[begin : begin + size] for array in space])
                tasks.append(pool.submit(fill).result if workers else fill)
            ahead.append((space, tasks))
            if workers and len(ahead) <= AHEAD:
                continue
            (labels, *pictures), tasks = ahead.popleft()
            for broken in sorted(itertools.chain.from_iterable([task() for task in tasks])):
                note(*broken)
            shown = {size: pictures[look] for size, look in teacher.items()}
            yield Batch(step - len(ahead), labels, pictures[0], shown)
    finally:
        if not exiting():
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Maker:
    """Batches in chunks, each read, drawn, decoded and cropped from its number alone."""

    source: Source
    seed: int
    batch_size: int
    rows: range  # of the batch that are made
    draws: Sequence[Callable[..., host_views.Boxes]]  # the student's, and where it is independent the teacher's
    looks: Sequence[tuple[int, int]]  # number in `draws` and size in pixels of all that is shown of an image
    channels: int
    numbered: bool

    def space(self) -> list[np.ndarray]:
        """New memory for a step: labels int32 (n,), and for each of the looks uint8 (n, size, size, channels)."""
        shapes = [(len(self.rows), size, size, self.channels) for _, size in self.looks]
        return [np.empty(len(self.rows), np.int32), *(np.empty(shape, np.uint8) for shape in shapes)]

    def fill(self, step: int, begin: int, space: list[np.ndarray]) -> list[_Broken]:
        """Writes the images of a step from position `begin` of the rows on, and tells which are broken and replaced."""
        labels, *pictures = space
        count, key = len(self.source), host_views.step_key(self.seed, step)
        begin += self.rows.start
        first = sampler.batch_indices(self.seed, step, self.batch_size, count)[begin:]
        broken, places = list[_Broken](), list(range(len(labels)))
        for tried in range(min(ATTEMPTS, count)):
            numbers = {place: int(first[place] + tried) % count for place in places}
            examples, ratios = dict[int, Encoded](), list[float]()
            for place in places:
                examples[place] = self.source.encoded(numbers[place])
                try:
                    height, width = decode.sides(examples[place].image)
                    ratios.append(width / height)
                except decode.ImageError as error:
                    broken.append((numbers[place], examples.pop(place).name, str(error)))
            looks = self._looks(key, begin + np.array([*examples], int), np.array(ratios, np.float32))
            for (place, example), shown in zip(examples.items(), looks, strict=True):
                try:
                    crops = decode.crops(example.image, shown, self.channels)
                except decode.ImageError as error:
                    broken.append((numbers[place], example.name, str(error)))
                    continue
                for picture, crop in zip(pictures, crops, strict=True):
                    picture[place] = crop
                labels[place] = numbers[place] if self.numbered else example.label
                places.remove(place)
            if not places:
                return broken
        _, name, reason = broken[-1]
        raise DistillError(f"none of {tried + 1} images up to {name} can be decoded ({reason}): check the data set.")

    def _looks(self, key: np.ndarray, positions: np.ndarray, ratios: np.ndarray) -> Iterable[tuple[decode.Look, ...]]:
        """For each image the looks at it, drawn of all at once: NumPy is slow at single numbers."""
        drawn = [draw(key, positions, ratios) for draw in self.draws]
        by_look = [
            [decode.Look(box, flip, size) for box, flip in zip(*(each.tolist() for each in drawn[draw]), strict=True)]
            for draw, size in self.looks
        ]
        return zip(*by_look, strict=True)
