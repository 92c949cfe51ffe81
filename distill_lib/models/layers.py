"""What the families share: convolutions, the outputs that rematerialisation keeps, and frozen kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Params = dict[str, Any]
Kernel = jax.Array | np.ndarray
Pads = Sequence[tuple[int, int]]

UNIT = "unit"
_FLOAT32_LAYERS = frozenset({"head", "hidden", "squeeze"})  # they follow a mean over the image, which is float32


def unit_output(x: jax.Array) -> jax.Array:
    """Marks the output of a residual unit, which is kept where the rest is computed again for the gradient."""
    return checkpoint_name(x, UNIT)


def convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1) -> jax.Array:
    """A convolution of (batch, height, width, channels) with a kernel (height, width, channels / groups, features)."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def product(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """A 1x1 convolution as a flat matrix product, which XLA:CPU runs, with its gradient, 3-4 times faster."""
    x = x[:, ::stride, ::stride]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def map_kernels(function: Callable[[Kernel], Kernel], params: Params) -> Params:
    """Applies a function to every kernel that is used in the dtype of the activations."""

    def mapped(path: tuple[Any, ...], leaf: Kernel) -> Kernel:
        names = [part.key for part in path]
        return function(leaf) if names[-1] == "kernel" and _FLOAT32_LAYERS.isdisjoint(names) else leaf

    return jax.tree_util.tree_map_with_path(mapped, params)
