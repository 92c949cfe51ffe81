"""Weights in few bits: symmetric, with a scale for each output channel, as integer arithmetic on devices wants them.

Only the rounding is done here; the network still computes in float32, with weights that so many bits can hold.

References:
    Jacob et al., "Quantization and training of neural networks for efficient inference", CVPR 2018, section 2.1.
"""

from __future__ import annotations

import jax
import numpy as np

from distill_lib.errors import DistillError
from distill_lib.models import Variables

FEWEST, MOST = 2, 16  # bits
FULL = 32  # of a number that is not rounded, and of every scale


def rounded(variables: Variables, bits: int) -> Variables:
    """Rounds every kernel (..., outputs) to `2**bits - 1` levels, from -max to max of the weights of each output.

    Biases, and scales of normalisation, stay. Raises DistillError for a number of bits that is none of 2 to 16.
    """
    if not FEWEST <= bits <= MOST:
        raise DistillError(f"weights are rounded to {FEWEST} to {MOST} bits, not {bits}.")
    most = 2 ** (bits - 1) - 1

    def rounding(kernel: np.ndarray) -> np.ndarray:
        scale = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True) / most
        return np.round(kernel / np.where(scale > 0, scale, 1)).astype(np.float32) * scale

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: rounding(np.asarray(leaf, np.float32)) if _is_kernel(path) else leaf, variables
    )


def size(variables: Variables, bits: int = FULL) -> int:
    """Bytes of a network's numbers where kernels have so many bits, and a scale of 32 for each output."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        few = _is_kernel(path) and bits < FULL
        total += bits * leaf.size + FULL * leaf.shape[-1] if few else FULL * leaf.size
    return -(-total // 8)


def _is_kernel(path: tuple[jax.tree_util.DictKey, ...]) -> bool:
    return bool(path[-1].key == "kernel")
