"""What evaluation shows of a split: images in memory, or central crops that are decoded once at the sizes in use."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import flax.linen as nn
import numpy as np

from distill_lib import datasets, decode, evaluate
from distill_lib.models.ensemble import Ensemble


class Exam(Protocol):
    """The examples of a split that a network is judged by."""

    labels: np.ndarray

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """Logits (n, classes) of the evaluation views, rendered at a resolution, or at the network's own."""


class InMemory:
    """An exam on images that are in memory whole."""

    def __init__(self, arrays: datasets.Arrays, side: float, limit: int | None) -> None:
        self._arrays, self._side = datasets.first(arrays, limit), side
        self.labels = self._arrays.labels

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """See `Exam`."""
        predict = evaluate.predictor(network, resolution=resolution, side=self._side)
        return predict(variables, self._arrays.images, self._arrays.extents)


class Decoded:
    """An exam on images that stay encoded; their central crops are decoded when they are first asked for, and kept.

    The shorter side is resized by area to resolution / side and the middle is cropped, as in the paper. An image that
    cannot be decoded is told once, and black is shown instead.
    """

    def __init__(self, source: datasets.Source, side: float, limit: int | None) -> None:
        self._source, self._side = source, side
        self._count = min(len(source), limit or len(source))
        self._shown: dict[int, np.ndarray] = {}
        self._told: set[int] = set()
        self.labels = source.labels(range(self._count))

    def predict(self, network: nn.Module | Ensemble, variables: Any, resolution: int) -> np.ndarray:
        """See `Exam`."""
        members = network.members if isinstance(network, Ensemble) else ()
        sizes = {member.resolution or resolution for member in members} or {resolution}
        crops = {size: self._crops(size) for size in sorted(sizes)}
        return evaluate.crop_predictor(network, resolution=resolution)(variables, crops)

    def _crops(self, size: int) -> np.ndarray:
        if size not in self._shown:
            with ThreadPoolExecutor() as pool:
                self._shown[size] = np.stack(list(pool.map(self._crop(size), range(self._count))))
        return self._shown[size]

    def _crop(self, size: int) -> Callable[[int], np.ndarray]:
        channels, small = self._source.dataset.channels, round(size / self._side)

        def crop(index: int) -> np.ndarray:
            image, _, name = self._source.encoded(index)
            try:
                return decode.evaluation(image, small, size, channels)
            except decode.ImageError as error:
                if index not in self._told:
                    self._told.add(index)
                    print(f"image {index}, {name}, cannot be decoded ({error}); black is shown instead", file=sys.stderr)
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
