"""Soft labels: what is kept of a teacher's logits, so that training can go on without the teacher.

A view is a function of seed, step and place in the batch, so it is never stored: the soft labels alone are.

References:
    Wu et al., "TinyViT: Fast pretraining distillation for small vision transformers", ECCV 2022, section 3.1 (sparse
    soft labels, the rest of the mass spread evenly).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LOWEST = float(np.finfo(np.float16).min)


class SoftLabels(NamedTuple):
    """What is kept of the logits of a batch: differences to the largest one, which is all that a softmax sees."""

    logits: (
        jax.Array | np.ndarray
    )  #: (batch, kept) float16, at most 0; of all classes in order, or of the likeliest ones
    classes: jax.Array | np.ndarray | None = None  #: (batch, kept) unsigned integers; None where all classes are kept
    rest: jax.Array | np.ndarray | None = (
        None  #: (batch,) float16, what every other class gets; None where all are kept
    )


@functools.partial(jax.jit, static_argnames="kept")
def keep(logits: jax.Array, kept: int, temperature: jax.Array | float = 1.0) -> SoftLabels:
    """Keeps the largest logits, and of the others the probability that they have together.

    Args:
        logits: (batch, classes) float32.
        kept: how many; all where there are no more classes.
        temperature: T at which the probability of the others is exact. Spread evenly, they weigh too much at any higher
            temperature and too little at any lower one.
    """
    num_classes = logits.shape[-1]
    logits = logits - logits.max(axis=-1, keepdims=True)
    if kept >= num_classes:
        return SoftLabels(_half(logits))
    largest, classes = jax.lax.top_k(logits, kept)
    others = jax.vmap(lambda row, at: row.at[at].set(-jnp.inf))(logits, classes)
    rest = temperature * (jax.nn.logsumexp(others / temperature, axis=-1) - np.log(num_classes - kept))
    return SoftLabels(_half(largest), classes.astype(_index(num_classes)), _half(rest))


def restore(soft: SoftLabels, num_classes: int) -> jax.Array:
    """Turns soft labels back into logits (batch, num_classes), float32."""
    logits = jnp.asarray(soft.logits, jnp.float32)
    if soft.classes is None or soft.rest is None:
        return logits
    rest = jnp.repeat(jnp.asarray(soft.rest, jnp.float32)[:, None], num_classes, axis=1)
    return jnp.asarray(jax.vmap(lambda row, at, own: row.at[at].set(own))(rest, jnp.asarray(soft.classes), logits))


def size(kept: int, num_classes: int) -> int:
    """Bytes of one soft label, before compression."""
    if kept >= num_classes:
        return 2 * num_classes
    return kept * (2 + _index(num_classes).itemsize) + 2


def _half(values: jax.Array) -> jax.Array:
    return jnp.maximum(values, _LOWEST).astype(jnp.float16)


def _index(num_classes: int) -> np.dtype:
    """The smallest type that counts the classes."""
    return np.min_scalar_type(num_classes - 1)


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher that is not asked again: it takes the place of an `Ensemble`, and soft labels that of variables."""

    num_classes: int

    def sizes(self, resolution: int) -> list[int]:
        """None: nothing has to be shown to anybody."""
        return []

    def logits(self, soft: SoftLabels, show: Any, temperature: jax.Array | float = 1.0) -> jax.Array:
        """What the teacher said, (batch, classes) float32; nothing is shown to anybody."""
        return restore(soft, self.num_classes)
