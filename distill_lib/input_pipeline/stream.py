"""Batches of crops for sets that do not fit into memory: images are decoded when they are needed, by threads.

Which examples a step sees says `sampler.batch_indices`, and how each is cropped `host_views`, so a batch is a function
of (seed, step) here as it is on the device; the number of workers, the hosts and the first step change nothing. Mixup
is left to the device. Decoding and cropping release Python's lock, so threads use all cores.
"""

from __future__ import annotations

import collections
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np

from distill_lib import crops, views
from distill_lib.errors import DistillError, unknown
from distill_lib.input_pipeline import host_views, sampler
from distill_lib.input_pipeline.workers import Bad, Chunks, Room, Source, Told

ON_BAD_IMAGE = ("substitute", "raise")
CHUNK = 64  # images that a worker makes at once, at most
AHEAD = 2  # batches that threads make in advance
_Made = tuple[Room, list[Told]]  # a batch, and what there is to say of each of its chunks


class Batch(NamedTuple):
    """A host's share of a batch.

    Attributes:
        step: number of the step.
        positions: int32 (n,), where in the global batch the share lies.
        labels: int32 (n,).
        student: uint8 (n, size, size, colours).
        teacher: by size, uint8 (n, size, size, colours); with a shared view of the student's size the very same array.
    """

    step: int
    positions: np.ndarray
    labels: np.ndarray
    student: np.ndarray
    teacher: dict[int, np.ndarray]


class Stream(Iterator[Batch]):
    """Endless batches of a host, in order; made by `batches`. Close it, or use it in `with`, to end its workers.

    Attributes:
        bad: names of the broken images that were met so far, by index; its length is for the record of the run.
        substituted: how often another image was shown in place of a broken one.
    """

    def __init__(
        self, work: Chunks, made: Iterator[_Made], teacher: dict[int, int], raises: bool, report: Callable
    ) -> None:
        self.bad: dict[int, str] = {}
        self.substituted = 0
        self._work, self._made, self._teacher = work, made, teacher
        self._raises, self._report = raises, report
        self._step = work.start_step
        # Also where nobody closes it: at exit, before the modules go that the workers are ended with.
        self._end = weakref.finalize(self, made.close)  # type: ignore[attr-defined]

    def __next__(self) -> Batch:
        """The next step's batch; raises DistillError for a broken image if asked to, or if nothing can replace it."""
        work = self._work
        (labels, shown), told = next(self._made)
        for bad, error in told:
            self._count(bad)
            if error is not None:
                raise DistillError(error)
        positions = np.arange(work.first, work.first + work.share, dtype=np.int32)
        teacher = {size: shown[look] for size, look in self._teacher.items()}
        self._step += 1
        return Batch(self._step - 1, positions, labels, shown[0], teacher)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers."""
        self._end()
        self._made = iter(())

    def _count(self, bad: list[Bad]) -> None:
        for index, name, reason in bad:
            if self._raises:
                raise DistillError(
                    f"image {index}, {name}, cannot be decoded ({reason}): replace the file, or choose "
                    'on_bad_image="substitute".'
                )
            if index not in self.bad:
                self.bad[index] = name
                self._report(f"image {index}, {name}, cannot be decoded ({reason}); the next one is shown instead")
            self.substituted += 1


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
    report: Callable[[str], object] = _to_stderr,
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
        report: is given one line for each broken image, once.

    Returns:
        An endless iterator; it holds the broken images that it met.

    Raises:
        DistillError: a name or a number is wrong, told at once.
    """
    row = views.policy(policy)
    if on_bad_image not in ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, ON_BAD_IMAGE)
    share = _share(batch_size, host, hosts)
    sampler.batch_indices(seed, start_step, batch_size, len(source))  # tells bad numbers now
    draws = [host_views.Crop(row.student, row.flip, area=area, whole=whole)]
    if row.relation == "independent":
        draws.append(host_views.Crop(str(row.teacher), row.flip, True, area=area, whole=whole))
    looks = list(dict.fromkeys([(0, student_size), *((len(draws) - 1, size) for size in teacher_sizes)]))
    teacher = {size: looks.index((len(draws) - 1, size)) for size in teacher_sizes}
    workers = crew(workers)
    work = Chunks(
        source=source,
        seed=seed,
        start_step=start_step,
        batch_size=batch_size,
        first=host * share,
        share=share,
        chunk=min(CHUNK, -(-share // max(workers, 1))),
        draws=tuple(draws),
        looks=tuple(looks),
        channels=channels,
    )
    made = _by_threads(work, workers) if workers else _in_turn(work)
    return Stream(work, made, teacher, on_bad_image == "raise", report)


def _share(batch_size: int, host: int, hosts: int) -> int:
    """Images of a batch that each host gets."""
    if hosts < 1 or not 0 <= host < hosts or batch_size % hosts:
        raise DistillError(
            f"host {host} of {hosts} has no equal share of a batch of {batch_size}: count hosts from 0, and choose a "
            "batch_size that they divide."
        )
    return batch_size // hosts


def crew(workers: int | None) -> int:
    """How many workers decode: one for each core where no number is given; raises DistillError for one below 0."""
    if workers is not None and workers < 0:
        raise DistillError(f"workers must not be negative, got {workers}: 0 decodes without any.")
    return cores() if workers is None else workers


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_turn(work: Chunks) -> Iterator[_Made]:
    """Every step when it is asked for, in this thread."""
    for step in itertools.count(work.start_step):
        room = work.room(work.share)
        yield room, [work.fill(step, begin, room.part(begin, work.chunk)) for begin in work.begins()]


def _by_threads(work: Chunks, workers: int) -> Iterator[_Made]:
    """Some steps in advance; threads write the chunks where they belong."""
    crew = futures.ThreadPoolExecutor(workers, "stream")

    def begun(step: int) -> tuple[Room, list[futures.Future[Told]]]:
        room = work.room(work.share)
        return room, [crew.submit(work.fill, step, begin, room.part(begin, work.chunk)) for begin in work.begins()]

    try:
        steps = itertools.count(work.start_step)
        ahead = collections.deque(begun(step) for step in itertools.islice(steps, AHEAD))
        for step in steps:
            ahead.append(begun(step))
            room, parts = ahead.popleft()
            yield room, [part.result() for part in parts]
    finally:
        crew.shutdown(wait=False, cancel_futures=True)
