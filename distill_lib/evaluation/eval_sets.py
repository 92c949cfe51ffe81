"""What evaluation shows of a split: images in memory, or central crops that are decoded once at the sizes in use."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import flax.linen as nn
import numpy as np

from distill_lib import datasets, views
from distill_lib.datasets import decode
from distill_lib.evaluation import predict as evaluation_predict
from distill_lib.models.ensemble import Ensemble

KEPT_BYTES = 2 * 2**30  # crops of an exam that are kept between two uses; larger ones are decoded each time
FEATURE_IMAGES = 5_000  # the first of a split, whose features are compared (`cka`)
AT_ONCE = 2_000  # images of a larger exam that are in memory at a time
CROPPED_IMAGES = 10_000  # the first of a split, that are shown under random crops


class Exam(Protocol):
    """The examples of a split that a network is judged by."""

    @property
    def labels(self) -> np.ndarray:
        """Labels int32 (n,), or bool (n, classes) where an image has any number of them."""

    @property
    def bad(self) -> Collection[int] | None:
        """Numbers of the broken images among those shown so far; None where all images were decoded beforehand."""

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """Logits (n, classes) of the evaluation views, rendered at a resolution, or at the network's own."""

    def features(self, network: nn.Module | Ensemble, variables: Any, resolution: int, limit: int) -> np.ndarray:
        """What the last layer is given, (at most `limit`, width), of the first images shown in the same way."""


def sound(exam: Exam, *columns: np.ndarray | None) -> list[Any]:
    """Leaves out the broken images, so that all networks are judged by the same ones.

    Args:
        exam: after the networks were shown its images: broken ones are found when they are decoded.
        *columns: arrays with a row for each of its first images, or None.

    Returns:
        The arrays without the rows of broken images, and None as it was.
    """
    if not exam.bad:
        return list(columns)
    kept = ~np.isin(np.arange(len(exam.labels)), list(exam.bad))
    return [None if column is None else column[kept[: len(column)]] for column in columns]


class InMemory:
    """An exam on images that are in memory whole, from when they are first asked for."""

    bad = None

    def __init__(self, read: Callable[[], datasets.Arrays], side: float, limit: int | None = None) -> None:
        self._read, self._side, self._limit = read, side, limit

    @functools.cached_property
    def arrays(self) -> datasets.Arrays:
        """The images that are shown, and their labels."""
        return datasets.first(self._read(), self._limit)

    @property
    def labels(self) -> np.ndarray:
        """See `Exam`."""
        return self.arrays.labels

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """See `Exam`."""
        predict = evaluation_predict.predictor(network, resolution=resolution, side=self._side)
        return predict(variables, self.arrays.images, self.arrays.extents)

    def features(self, network: nn.Module | Ensemble, variables: Any, resolution: int, limit: int) -> np.ndarray:
        """See `Exam`."""
        predict = evaluation_predict.predictor(network, resolution=resolution, side=self._side, output="features")
        shown = datasets.first(self.arrays, limit)
        return predict(variables, shown.images, shown.extents)


class Decoded:
    """An exam on images that stay encoded; central crops are decoded when they are asked for, and kept if they are few.

    The shorter side is resized by area to resolution / side and the middle is cropped, as in the paper. An image that
    cannot be decoded is told once and is one of `bad`; what is predicted for it has no meaning.
    """

    def __init__(self, source: datasets.Source, side: float, limit: int | None) -> None:
        self._source, self._side = source, side
        self._count = min(len(source), limit or len(source))
        self._shown: dict[int, np.ndarray] = {}
        self.bad: set[int] = set()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """See `Exam`; read when they are first asked for, since the encoded images are read with them."""
        return self._source.labels(range(self._count))

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """See `Exam`."""
        predict = evaluation_predict.crop_predictor(network, resolution=resolution)
        return self._shown_to(predict, network, variables, resolution, self._count)

    def features(self, network: nn.Module | Ensemble, variables: Any, resolution: int, limit: int) -> np.ndarray:
        """See `Exam`."""
        predict = evaluation_predict.crop_predictor(network, resolution=resolution, output="features")
        return self._shown_to(predict, network, variables, resolution, min(limit, self._count))

    def _shown_to(
        self, predict: Callable, network: nn.Module | Ensemble, variables: Any, resolution: int, count: int
    ) -> np.ndarray:
        """What a predictor says of the first `count` images."""
        members = network.members if isinstance(network, Ensemble) else ()
        sizes = sorted({member.resolution or resolution for member in members} or {resolution})
        if self._count * self._source.dataset.channels * sum(size * size for size in sizes) <= KEPT_BYTES:
            return predict(variables, {size: self._kept(size)[:count] for size in sizes})
        parts = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
        return np.concatenate([predict(variables, {size: self._crops(size, part) for size in sizes}) for part in parts])

    def _kept(self, size: int) -> np.ndarray:
        if size not in self._shown:
            self._shown[size] = self._crops(size, range(self._count))
        return self._shown[size]

    def _crops(self, size: int, indices: range) -> np.ndarray:
        crops = np.empty((len(indices), size, size, self._source.dataset.channels), np.uint8)
        with ThreadPoolExecutor() as pool:
            for place, crop in enumerate(pool.map(self._crop(size), indices)):
                crops[place] = crop
        return crops

    def _crop(self, size: int) -> Callable[[int], np.ndarray]:
        channels, small = self._source.dataset.channels, round(size / self._side)

        def crop(index: int) -> np.ndarray:
            image, _, name = self._source.encoded(index)
            try:
                return decode.evaluation(image, small, size, channels)
            except decode.ImageError as error:
                if index not in self.bad:
                    self.bad.add(index)
                    place = f"image {index} of {self._source.dataset.name} {self._source.split}, {name},"
                    # in one piece: threads that print would mix their lines
                    sys.stderr.write(f"{place} cannot be decoded ({error}); it does not count\n")
                return np.zeros((size, size, channels), np.uint8)

        return crop


def open_exam(name: str, split: str, side: float, *, mock: bool = False, limit: int | None = None) -> Decoded:
    """Opens a split of any data set as an exam; images are decoded on the way, at the sizes in use.

    Args:
        name: data set, as in `datasets.get`.
        split: "train", "validation" or "test"; sets for evaluation only have just the last.
        side: side of the central square that is shown, as a fraction of the shorter side.
        mock: invented images, as in `datasets.load`.
        limit: the first so many images; None takes all.

    Returns:
        The exam; its labels are int32 (n,), or bool (n, classes) where an image has any number of them.

    Raises:
        DistillError: as in `datasets.load`.
    """
    return Decoded(datasets.load(name, split, limit=limit, mock=mock), side, limit)


def top1_under_crops(
    name: str, network: nn.Module, variables: Any, *, resolution: int, area: views.Range, mock: bool = False
) -> float:
    """Mean top-1 on test images under random inception crops, as `predict.top1_under_crops`.

    Args:
        name: data set, as in `datasets.get`; of a large one, the first `CROPPED_IMAGES` test images are taken.
        network: the module that predicts.
        variables: of the module.
        resolution: height and width to render at, in pixels.
        area: smallest and largest area of a crop, as fractions of the image.
        mock: invented images, as in `datasets.load`.

    Raises:
        DistillError: as in `datasets.load`.
    """
    count = min(len(datasets.load(name, "test", mock=mock)), CROPPED_IMAGES)
    images, labels, _, extents = datasets.arrays(name, "test", count, mock=mock)
    return evaluation_predict.top1_under_crops(
        network, variables, images, labels, resolution=resolution, area=area, extents=extents
    )
