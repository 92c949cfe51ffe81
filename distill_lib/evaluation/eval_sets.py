"""Evaluation sets: which images of a split judge a network, how they are shown, and what a network says of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from distill_lib import sharding, views
from distill_lib.input_pipeline.splits import Split
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.views import Pixels

FEATURE_IMAGES = 5_000  # the first of a split, whose features are compared (`cka`)
AT_ONCE = 500  # images, over all devices

Network = nn.Module | Ensemble
"""The module that predicts, or a teacher's ensemble."""


@dataclass(frozen=True)
class EvalSet:
    """The examples of a split that a network is judged by."""

    split: Split
    side: float = 1.0  #: of the central square that is shown, as a fraction of the shorter side
    limit: int | None = None  #: the first so many images; None takes all

    def __len__(self) -> int:
        return min(len(self.split), self.limit or len(self.split))

    @property
    def labels(self) -> np.ndarray:
        """Labels int32 (n,), or bool (n, classes) where an image has any number of them."""
        return self.split.labels(self.limit)

    def logits(self, network: Network, variables: Any, resolution: int) -> np.ndarray:
        """Logits (n, classes) of the evaluation views, rendered at a resolution, or at the network's own."""
        return self._said(network, variables, resolution, "logits", len(self))

    def features(self, network: Network, variables: Any, resolution: int) -> np.ndarray:
        """What the last layer is given, (at most `FEATURE_IMAGES`, width), of the first of the same views."""
        return self._said(network, variables, resolution, "features", min(FEATURE_IMAGES, len(self)))

    def sound(self, *columns: np.ndarray | None) -> list[Any]:
        """Leaves out the broken images, which were found in decoding, of arrays with a row an image, or None."""
        if not self.split.bad:
            return list(columns)
        kept = ~np.isin(np.arange(len(self)), list(self.split.bad))
        return [None if column is None else column[kept[: len(column)]] for column in columns]

    def _said(self, network: Network, variables: Any, resolution: int, output: str, count: int) -> np.ndarray:
        ensemble = network if isinstance(network, Ensemble) else Ensemble((Member(network),))
        variables = variables if ensemble is network else (variables,)
        answer = _program(ensemble, resolution, self.side, output)
        variables = sharding.on_all_devices(variables)
        parts = self.split.parts(self.side, ensemble.sizes(resolution), AT_ONCE, count=count)
        return np.concatenate([sharding.fetch(answer(variables, part)) for part in parts])[:count]


@functools.lru_cache(maxsize=64)
def _program(ensemble: Ensemble, resolution: int, side: float, output: str) -> Callable[..., jax.Array]:
    @jax.jit
    def answer(variables: Any, pixels: Pixels) -> jax.Array:
        view = views.still(len(jax.tree.leaves(pixels)[0]), side=side, image_aspect=pixels.aspect())
        show = lambda size: pixels.show(view, size or resolution, teacher=True)  # noqa: E731
        return getattr(ensemble, output)(variables, show)

    return answer
