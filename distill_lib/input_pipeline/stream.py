"""Batches of crops for sets that do not fit into memory: images are decoded when they are needed, by threads.

Which examples a step sees says `sampler.batch_indices`, and how each is cropped `host_views`, so a batch is a function
of (seed, step) here as it is on the device; the number of workers, the hosts and the first step change nothing. Mixup
is left to the device. Decoding and cropping release Python's lock, so threads use all cores.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill_lib import crops, views
from distill_lib.datasets import decode
from distill_lib.errors import DistillError, unknown
from distill_lib.input_pipeline import host_views, sampler
from distill_lib.log import logger

ON_BAD_IMAGE = ("substitute", "raise")
ATTEMPTS = 100  # images that are tried in place of a broken one
CHUNK = 64  # images that a worker makes at once, at most
AHEAD = 2  # batches that threads make in advance


class Source(Protocol):
    """What `datasets.Source` is: random access to examples as `datasets.Encoded`."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> Any:
        """An example's `image`, `label` and `name`."""


class Batch(NamedTuple):
    """A host's share of a batch.

    Attributes:
        step: number of the step.
        labels: int32 (n,).
        student: uint8 (n, size, size, channels).
        teacher: by size, uint8 (n, size, size, channels); with a shared view of the student's size the very same array.
    """

    step: int
    labels: np.ndarray
    student: np.ndarray
    teacher: dict[int, np.ndarray]


class _Broken(NamedTuple):
    number: int
    name: str
    reason: str


class _Candidate(NamedTuple):
    """An example whose header can be read: `number`, the `attempt`-th that is tried in place of `original`."""

    original: int
    attempt: int
    number: int
    example: Any
    known: decode.Known


_Made = tuple[list[np.ndarray], list[list[_Broken]]]  # a batch's labels and pictures, and what is broken in each chunk


class Stream(Iterator[Batch]):
    """Endless batches of a host, in order; made by `batches`. Close it, or use it in `with`, to end its workers.

    Attributes:
        bad: names of the broken images that were met so far, by index; its length is for the record of the run.
    """

    def __init__(
        self, made: Generator[_Made], start_step: int, teacher: dict[int, int], report: Callable[[str], object]
    ) -> None:
        self.bad: dict[int, str] = {}
        self._made, self._teacher, self._report = made, teacher, report
        self._steps = itertools.count(start_step)
        # Also where nobody closes it: at exit, before the modules go that the workers are ended with.
        self.close = weakref.finalize(self, made.close)

    def __next__(self) -> Batch:
        """The next step's batch; raises DistillError for a broken image if asked to, or if nothing can replace it."""
        (labels, *pictures), chunks = next(self._made)
        for index, name, reason in itertools.chain(*chunks):
            if index not in self.bad:
                self.bad[index] = name
                self._report(f"image {index}, {name}, cannot be decoded ({reason}); the next one is shown instead")
        teacher = {size: pictures[look] for size, look in self._teacher.items()}
        return Batch(next(self._steps), labels, pictures[0], teacher)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    host: int = 0,
    hosts: int = 1,
    workers: int | None = None,
    on_bad_image: str = "substitute",
    report: Callable[[str], object] = logger.warning,
) -> Stream:
    """Streams the crops that teacher and student are shown, from a step on.

    Args:
        source: the examples, random access; read by several threads at once.
        seed: of the run: of the order of examples and of the views.
        batch_size: images in the global batch, over all hosts.
        student_size: side of the student's pictures in pixels.
        teacher_sizes: sides of the teachers' pictures; empty where there is no teacher in the step.
        start_step: first step, larger than 0 to resume; nothing before it is read.
        policy: a key of `views.POLICIES` or `views.BASELINES`.
        area: as in `views.sample`.
        whole: as in `views.sample`.
        channels: 1 (grey) or 3.
        host: number of the equal, contiguous share of the batch that is wanted.
        hosts: number of shares.
        workers: how many threads decode, see `crew`; 0 decodes when a batch is asked for.
        on_bad_image: "substitute" shows the next example of the split that can be decoded instead, "raise" stops.
        report: is given one line for each broken image, once; by default a warning.

    Returns:
        An endless iterator; it holds the broken images that it met.

    Raises:
        DistillError: a name or a number is wrong, told at once.
    """
    row = views.policy(policy)
    if on_bad_image not in ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, ON_BAD_IMAGE)
    if hosts < 1 or not 0 <= host < hosts or batch_size % hosts:
        raise DistillError(
            f"host {host} of {hosts} has no equal share of a batch of {batch_size}: count hosts from 0, and choose a "
            "batch_size that they divide."
        )
    sampler.batch_indices(seed, start_step, batch_size, len(source))  # tells bad numbers now
    draws = [host_views.Crop(row.student, row.flip, area=area, whole=whole)]
    if row.relation == "independent":
        draws.append(host_views.Crop(str(row.teacher), row.flip, True, area=area, whole=whole))
    looks = list(dict.fromkeys([(0, student_size), *((len(draws) - 1, size) for size in teacher_sizes)]))
    share = batch_size // hosts
    chunks = _Chunks(
        source, seed, batch_size, host * share, share, draws, looks, channels, stops=on_bad_image == "raise"
    )
    made = _made(chunks, start_step, crew(workers))
    return Stream(made, start_step, {size: looks.index((len(draws) - 1, size)) for size in teacher_sizes}, report)


def crew(workers: int | None) -> int:
    """How many workers decode: one for each core where no number is given; raises DistillError for one below 0."""
    if workers is not None and workers < 0:
        raise DistillError(f"workers must not be negative, got {workers}: 0 decodes without any.")
    return cores() if workers is None else workers


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(chunks: _Chunks, start_step: int, workers: int) -> Generator[_Made]:
    """Makes batches in order: some in advance, by threads; without workers each when it is asked for."""
    size = min(CHUNK, -(-chunks.share // max(workers, 1)))
    pool = futures.ThreadPoolExecutor(max(workers, 1), "stream")  # starts a thread only when it is given something
    ahead = collections.deque[tuple[list[np.ndarray], list[Callable[[], list[_Broken]]]]]()
    try:
        for step in itertools.count(start_step):
            batch, tasks = chunks.space(), list[Callable[[], list[_Broken]]]()
            for begin in range(0, chunks.share, size):
                fill = functools.partial(chunks.fill, step, begin, [array[begin : begin + size] for array in batch])
                tasks.append(pool.submit(fill).result if workers else fill)
            ahead.append((batch, tasks))
            if len(ahead) > AHEAD or not workers:
                batch, tasks = ahead.popleft()
                yield batch, [task() for task in tasks]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Chunks:
    """A host's batches in chunks, each read, drawn, decoded and cropped from its number alone."""

    source: Source
    seed: int
    batch_size: int
    first: int  # position of the host's first image in the global batch
    share: int  # how many images it has
    draws: Sequence[host_views.Crop]  # the student's, and where it is independent the teacher's
    looks: Sequence[tuple[int, int]]  # number in `draws` and size in pixels of all that is shown of an image
    channels: int
    stops: bool  # whether a broken image raises; else the next one that can be decoded is seen from the same position

    def space(self) -> list[np.ndarray]:
        """New memory for a step: labels int32 (n,), and for each of the looks uint8 (n, size, size, channels)."""
        shapes = [(self.share, size, size, self.channels) for _, size in self.looks]
        return [np.empty(self.share, np.int32), *(np.empty(shape, np.uint8) for shape in shapes)]

    def fill(self, step: int, begin: int, space: list[np.ndarray]) -> list[_Broken]:
        """Writes the images of a step from position `begin` of the host's share on, and tells which are broken."""
        labels, *pictures = space
        indices = sampler.batch_indices(self.seed, step, self.batch_size, len(self.source))
        positions = self.first + np.arange(begin, begin + len(labels))
        key, broken = host_views.step_key(self.seed, step), list[_Broken]()
        candidates = [self._readable(int(index), 0, broken) for index in indices[positions]]
        looks = self._looks(key, positions, candidates)  # of all at once: NumPy is slow at single numbers
        for place, candidate in enumerate(candidates):
            out = [shown[place] for shown in pictures]
            while True:
                image, header = candidate.example.image, candidate.known.header
                try:
                    decode.crops(image, looks[place], self.channels, header=header, out=out)
                    break
                except decode.ImageError as error:
                    self._note(_Broken(candidate.number, candidate.example.name, str(error)), broken)
                candidate = self._readable(candidate.original, candidate.attempt + 1, broken)
                (looks[place],) = self._looks(key, positions[place : place + 1], [candidate])
            labels[place] = candidate.example.label
        return broken

    def _readable(self, original: int, start: int, broken: list[_Broken]) -> _Candidate:
        """Candidate number `start` in place of an example, or the first after it whose header can be read."""
        count = len(self.source)
        for attempt in range(start, min(ATTEMPTS, count)):
            number = (original + attempt) % count
            example = self.source.encoded(number)
            try:
                return _Candidate(original, attempt, number, example, decode.known(example.image))
            except decode.ImageError as error:
                self._note(_Broken(number, example.name, str(error)), broken)
        raise DistillError(
            f"none of {min(ATTEMPTS, count)} images up to {broken[-1].name} can be decoded ({broken[-1].reason}): "
            "check the data set."
        )

    def _looks(
        self, key: np.ndarray, positions: np.ndarray, candidates: Sequence[_Candidate]
    ) -> list[tuple[decode.Look, ...]]:
        """For each image the looks at it."""
        ratio = np.array([candidate.known.width / candidate.known.height for candidate in candidates], np.float32)
        drawn = [host_views.sample(key, positions, draw, ratio) for draw in self.draws]
        by_look = [
            [decode.Look(box, flip, size) for box, flip in zip(*(each.tolist() for each in drawn[draw]), strict=True)]
            for draw, size in self.looks
        ]
        return list(zip(*by_look, strict=True))

    def _note(self, bad: _Broken, broken: list[_Broken]) -> None:
        if self.stops:
            raise DistillError(
                f"image {bad.number}, {bad.name}, cannot be decoded ({bad.reason}): replace the file, or choose "
                'on_bad_image="substitute".'
            )
        broken.append(bad)
