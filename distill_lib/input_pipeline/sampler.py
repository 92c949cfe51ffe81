"""Batches as a function of (seed, step): which examples a step sees, whatever ran before it and on how many devices.

The examples form an endless stream: epoch after epoch, each a permutation of all. Step s takes positions s * batch_size
to (s + 1) * batch_size - 1 of it, so batches straddle epochs and no example is dropped.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from distill_lib.errors import DistillError


@functools.lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order in which an epoch, counted from 0, visits the examples: a permutation, int32 (n,), read-only."""
    # Sorting raw Philox output instead of calling `permutation`: NumPy promises the stream of a bit generator for
    # ever, that of a Generator's methods only within a version.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_examples)
    order = np.argsort(bits, kind="stable").astype(np.int32)
    order.setflags(write=False)
    return order


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """The examples of one step, int32 (batch_size,), over all devices; DistillError for numbers that make no sense."""
    if not 1 <= batch_size <= num_examples:
        raise DistillError(
            f"a batch of {batch_size} cannot be taken from {num_examples} examples: choose batch_size from 1 to "
            f"{num_examples}."
        )
    if step < 0:
        raise DistillError(f"step {step} is negative: count steps from 0.")
    if not 0 <= seed < 2**64:
        raise DistillError(f"seed {seed} is out of range: choose it from 0 to 2**64 - 1.")
    epoch, start = divmod(step * batch_size, num_examples)
    head = epoch_order(seed, epoch, num_examples)[start : start + batch_size]
    missing = batch_size - len(head)
    return np.concatenate([head, epoch_order(seed, epoch + 1, num_examples)[:missing]]) if missing else head


def batches(num_examples: int, *, seed: int, batch_size: int, start_step: int = 0) -> Iterator[np.ndarray]:
    """Endless `batch_indices` from a step on, larger than 0 to resume; raises as it does, at once."""
    batch_indices(seed, start_step, batch_size, num_examples)  # tells bad numbers now
    return (batch_indices(seed, step, batch_size, num_examples) for step in itertools.count(start_step))
