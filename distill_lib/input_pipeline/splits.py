"""A split of a data set, in memory or decoded on the way: steps, evaluation and teachers do not know which.

Both give the same batches for the same seed and step, to the rounding of crops to uint8, from images that fill their
canvas. Larger ones are shrunk to fit into memory, and cropped whole otherwise, so the two are different runs.
"""

import contextlib
import functools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import datasets, sharding
from distill_lib.crops import centred
from distill_lib.datasets import decode
from distill_lib.errors import logger
from distill_lib.input_pipeline import sampler, stream
from distill_lib.recipes import Recipe
from distill_lib.views import Crops, Images, Pixels

KEPT_BYTES = 2 * 2**30  # evaluation crops of a split that are kept between two uses; more are decoded each time

Steps = Generator[tuple[int, Pixels], None, None]


class InMemory:
    """Images that lie whole in memory, from when they are first asked for; a batch is an index."""

    streamed = False  #: whether images are decoded on the way
    bad = None  #: broken images among those that were evaluated so far, by number; None where all were decoded before
    substituted = None  #: those that were met in training, likewise

    def __init__(self, read: Callable[[], datasets.Arrays]) -> None:
        self._read = read

    @functools.cached_property
    def arrays(self) -> datasets.Arrays:
        """All images and labels."""
        return self._read()

    def __len__(self) -> int:
        return len(self.arrays.labels)

    def labels(self, count: int | None = None) -> np.ndarray:
        """Of the first `count` images, int32 (n,), or bool (n, classes) where an image has any number of them."""
        return self.arrays.labels[:count]

    def parts(
        self, side: float, sizes: Sequence[int], size: int, *, square: bool = True, count: int | None = None
    ) -> Generator[Pixels, None, None]:
        """The first `count` images in their order, or all, in parts of `size` over all devices; the last is filled up.

        They will be shown at `sizes` in pixels, as a centre with `side` of their sides, or of the shorter (`square`).
        """
        first = datasets.first(self.arrays, count)
        yield from sharding.in_parts(Images(first.images, extents=first.extents), size)

    def batches(
        self, recipe: Recipe, start: int, mesh: Mesh, targets: np.ndarray | None, teacher_sizes: Sequence[int]
    ) -> Steps:
        """Number and pixels of each step from `start` on, endless; `targets` (n, classes) replace the labels."""
        arrays, split = self.arrays, sharding.split(mesh)
        whole = Images(arrays.images, arrays.labels if targets is None else targets, arrays.extents)
        placed = sharding.put(whole, sharding.everywhere(mesh))
        drawn = sampler.batches(len(self), seed=recipe.order_seed, batch_size=recipe.batch_size, start_step=start)
        for number, indices in enumerate(drawn, start):
            yield number, placed._replace(indices=sharding.put(indices, split))


class Streamed:
    """Images that stay encoded until they are asked for, as in `stream.batches`; public names as of `InMemory`."""

    streamed = True

    def __init__(
        self, source: datasets.Source, workers: int | None = None, on_bad_image: str = stream.ON_BAD_IMAGE[0]
    ) -> None:
        self.source, self._workers, self._on_bad_image = source, workers, on_bad_image
        self.bad: set[int] = set()
        self.substituted: dict[int, str] = {}
        self._labels = functools.cache(lambda count: source.labels(range(count)))  # read with the encoded images
        self._kept: dict[tuple[float, int, int, int, bool], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.source)

    def labels(self, count: int | None = None) -> np.ndarray:
        """See `InMemory`."""
        return self._labels(min(len(self), count or len(self)))

    def parts(
        self, side: float, sizes: Sequence[int], size: int, *, square: bool = True, count: int | None = None
    ) -> Generator[Pixels, None, None]:
        """See `InMemory`; a square is resized by area so that its shorter side is that of the crop, as in the paper."""
        count = min(len(self), count or len(self))
        size = sharding.part_size(size, count)
        keep = square and count * self.source.dataset.channels * sum(side * side for side in sizes) <= KEPT_BYTES
        for start in range(0, count, size):
            stop = min(start + size, count)
            crops, own = {}, range(start, stop)[sharding.own_rows(size)]
            for pixels in sizes:
                key = (side, pixels, start, stop, square)
                crops[pixels] = self._kept[key] if key in self._kept else self._crops(*key, own=own)
                if keep:
                    self._kept[key] = crops[pixels]
            broken = np.isin(np.arange(start, stop), list(self.bad))
            self.bad.update((start + np.flatnonzero(sharding.in_any(broken))).tolist())
            yield sharding.filled(Crops(None, crops), size)

    def _crops(self, side: float, size: int, start: int, stop: int, square: bool, own: range) -> np.ndarray:
        channels = self.source.dataset.channels
        (box,) = centred(np, 1, side)

        def crop(index: int) -> np.ndarray:
            if index not in own:
                return np.zeros((size, size, channels), np.uint8)
            image, _, name = self.source.encoded(index)
            try:
                if square:
                    return decode.evaluation(image, round(size / side), size, channels)
                return decode.crops(image, [decode.Look(box, False, size)], channels)[0]
            except decode.ImageError as error:
                if square and index not in self.bad:  # a step tells it otherwise, when its turn comes
                    self.bad.add(index)
                    place = f"image {index} of {self.source.dataset.name} {self.source.split}, {name},"
                    logger.warning("%s cannot be decoded (%s); it does not count", place, error)
                return np.zeros((size, size, channels), np.uint8)

        with ThreadPoolExecutor(self._workers or None) as pool:
            return np.stack(list(pool.map(crop, range(start, stop))))

    def batches(
        self, recipe: Recipe, start: int, mesh: Mesh, targets: np.ndarray | None, teacher_sizes: Sequence[int]
    ) -> Steps:
        """See `InMemory`."""
        self.substituted = {}
        given = stream.batches(
            self.source,
            recipe,
            start,
            teacher_sizes=teacher_sizes,
            targets=targets,
            rows=sharding.own_rows(recipe.batch_size),
            workers=self._workers,
            on_bad_image=self._on_bad_image,
            bad=self.substituted,
        )
        place = functools.partial(jax.make_array_from_process_local_data, sharding.split(mesh))
        with contextlib.closing(given):
            for number, crops in given:
                yield number, jax.tree.map(place, crops)


Split = InMemory | Streamed
"""The examples of a split, wherever they are."""
