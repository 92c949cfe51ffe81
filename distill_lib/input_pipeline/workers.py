"""Chunks of a batch: what a worker of `stream` does.

A chunk is read, drawn, decoded and cropped from its number alone. An image that cannot be decoded is replaced by the
next one of the split that can be, seen from the same position of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import host_views, sampler

ATTEMPTS = 100  # images that are tried in place of a broken one
Bad = tuple[int, str, str]  # index, name, reason


class Example(Protocol):
    """What `datasets.Encoded` is: the bytes or pixels of an image, its label, and the name of its file."""

    image: Any
    label: Any
    name: str


class Source(Protocol):
    """What `datasets.Source` is: random access to encoded examples."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> Any:
        """One `Example`."""


class Room(NamedTuple):
    """Memory for some images: labels int32 (n,), and for each thing that is shown uint8 (n, size, size, channels)."""

    labels: np.ndarray
    shown: list[np.ndarray]

    def part(self, begin: int, count: int) -> Room:
        """Some of it, which is the same memory."""
        place = slice(begin, begin + count)
        return Room(self.labels[place], [pictures[place] for pictures in self.shown])


class Told(NamedTuple):
    """What there is to say of a chunk: broken images, and why it could not be finished (None: it is)."""

    bad: list[Bad]
    error: str | None


class _Found(NamedTuple):
    """An example whose header can be read: `tried`, shown for `asked` after so many tries."""

    asked: int
    tries: int
    tried: int
    example: Any
    known: decode.Known


@dataclass(frozen=True)
class Chunks:
    """A host's batches in chunks; what workers are given.

    Attributes:
        source: the examples.
        seed, start_step, batch_size: as in `batches`.
        first, share: position of the host's first image in the global batch, and how many it has.
        chunk: images a chunk; the last one of a step may have fewer.
        draws: how crops are drawn: the student's, and where it is independent the teacher's.
        looks: (number in `draws`, size in pixels) of all that is shown of an image.
        channels: 1 or 3.
    """

    source: Source
    seed: int
    start_step: int
    batch_size: int
    first: int
    share: int
    chunk: int
    draws: tuple[host_views.Crop, ...]
    looks: tuple[tuple[int, int], ...]
    channels: int

    def room(self, count: int) -> Room:
        """New memory for so many images."""
        shown = [np.empty((count, size, size, self.channels), np.uint8) for _, size in self.looks]
        return Room(np.empty(count, np.int32), shown)

    def begins(self) -> range:
        """Where a step's chunks begin, counted from the host's first image."""
        return range(0, self.share, self.chunk)

    def fill(self, step: int, begin: int, room: Room) -> Told:
        """Writes the images of a step from position `begin` of the host's share on, as many as there is room for."""
        indices = sampler.batch_indices(self.seed, step, self.batch_size, len(self.source))
        positions = self.first + np.arange(begin, begin + len(room.labels))
        key, bad = host_views.step_key(self.seed, step), list[Bad]()
        try:
            found = [self._readable(int(index), 0, bad) for index in indices[positions]]
            views = self._views(key, positions, found)  # of all at once: NumPy is slow at single numbers
            for place, (one, looks) in enumerate(zip(found, zip(*views, strict=True), strict=True)):
                out = [pictures[place] for pictures in room.shown]
                room.labels[place] = self._show(key, positions[place], one, looks, out, bad)
        except DistillError as error:
            return Told(bad, str(error))
        return Told(bad, None)

    def _readable(self, index: int, number: int, bad: list[Bad]) -> _Found:
        """Candidate `number` in place of an example, or the first after it whose header can be read."""
        count = len(self.source)
        for tries in range(number, min(ATTEMPTS, count)):
            tried = (index + tries) % count
            example = self.source.encoded(tried)
            try:
                known = decode.known(example.image)
            except decode.ImageError as error:
                bad.append((tried, example.name, str(error)))
            else:
                return _Found(index, tries, tried, example, known)
        raise DistillError(
            f"none of {min(ATTEMPTS, count)} images up to {bad[-1][1]} can be decoded ({bad[-1][2]}): check the data "
            "set."
        )

    def _views(self, key: np.ndarray, positions: np.ndarray, found: list[_Found]) -> list[list[decode.Look]]:
        """Looks of images, in a list for each thing that is shown."""
        ratio = np.array([one.known.width / one.known.height for one in found], np.float32)
        drawn = [host_views.sample(key, positions, draw, ratio) for draw in self.draws]
        return [
            [decode.Look(box, flip, size) for box, flip in zip(*(each.tolist() for each in drawn[draw]), strict=True)]
            for draw, size in self.looks
        ]

    def _show(
        self,
        key: np.ndarray,
        position: np.signedinteger,
        found: _Found,
        looks: Sequence[decode.Look],
        out: list[np.ndarray],
        bad: list[Bad],
    ) -> Any:
        """Label of an example, or of the next one that can be decoded; its pictures go into `out`."""
        while True:
            try:
                header = found.known.header
                decode.crops(found.example.image, looks, self.channels, header=header, out=out)
                return found.example.label
            except decode.ImageError as error:
                bad.append((found.tried, found.example.name, str(error)))
            found = self._readable(found.asked, found.tries + 1, bad)
            looks = [each[0] for each in self._views(key, np.array([position]), [found])]
