"""One frozen network or several (Beyer et al., CVPR 2022, Table 1), each shown the view in its own size and range."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models
from distill_lib.errors import unknown

MEANS = ("logits", "probabilities")
Range = tuple[float | tuple[float, ...], float | tuple[float, ...]]
Show = Callable[[int | None], jax.Array]  # renders the view at a resolution; None is the student's


@dataclass(frozen=True)
class Member:
    """A network and what it wants to see."""

    model: Any  # the module, or what answers like one
    resolution: int | None = None  # height and width of its images in pixels; None takes whatever the student sees
    input_range: Range = (-1.0, 1.0)  # the values that a black and a white pixel have for it, or one for each channel

    def logits(self, variables: models.Variables, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, classes)."""
        return models.logits(self.model, variables, self._in_range(images))

    def features(self, variables: models.Variables, images: jax.Array) -> jax.Array:
        """Maps images as `logits` does, to what the last layer is given, (batch, features)."""
        return models.penultimate(self.model, variables, self._in_range(images))

    def _in_range(self, images: jax.Array) -> jax.Array:
        if self.input_range == (-1.0, 1.0):
            return images
        low, high = (np.reshape(np.asarray(end, np.float32), (1, 1, 1, -1)) for end in self.input_range)
        return images * ((high - low) / 2) + (high + low) / 2


@dataclass(frozen=True)
class Ensemble:
    """Networks, at least one, that answer with the mean of their logits (the paper), or of their probabilities."""

    members: tuple[Member, ...]
    mean: str = "logits"

    def __post_init__(self) -> None:
        if self.mean not in MEANS:
            raise unknown("ensemble", self.mean, MEANS)

    def sizes(self, resolution: int) -> list[int]:
        """Heights and widths in pixels that members are shown, each once, where the student is shown `resolution`."""
        return sorted({member.resolution or resolution for member in self.members})

    def logits(
        self, variables: Sequence[models.Variables], show: Show, temperature: jax.Array | float = 1.0
    ) -> jax.Array:
        """Logits (batch, classes) float32, of "probabilities" such whose softmax at the temperature is the mean."""
        answers = self._each(Member.logits, variables, show)
        if len(answers) == 1:
            return answers[0]
        if self.mean == "logits":
            return jnp.stack(answers).mean(axis=0)
        log_probabilities = jax.nn.log_softmax(jnp.stack(answers) / temperature)
        return temperature * (jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(float(len(answers))))

    def features(self, variables: Sequence[models.Variables], show: Show) -> jax.Array:
        """All members' features of one view side by side, (batch, features): their kernels add up."""
        return jnp.concatenate(self._each(Member.features, variables, show), axis=-1)

    def _each(
        self, ask: Callable[..., jax.Array], variables: Sequence[models.Variables], show: Show
    ) -> list[jax.Array]:
        return [ask(member, own, show(member.resolution)) for member, own in zip(self.members, variables, strict=True)]
