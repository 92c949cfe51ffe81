"""What the families share: convolutions, the outputs that rematerialisation keeps, and frozen kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

Params = dict[str, Any]
Kernel = jax.Array | np.ndarray
Pads = Sequence[tuple[int, int]]

Convolution = Callable[[jax.Array, jax.Array], jax.Array]

UNIT = "unit"
_PLAIN = ContextVar("plain", default=False)
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


def by_platform(x: jax.Array, kernel: jax.Array, cpu: Convolution, default: Convolution) -> jax.Array:
    """The same convolution in two forms, of which a program has the one that is fast where it runs; see `plain`."""
    return default(x, kernel) if _PLAIN.get() else jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Networks that are traced in this context have one form for all platforms, which converters understand."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def map_kernels(function: Callable[[Kernel], Kernel], params: Params) -> Params:
    """Applies a function to every kernel that is used in the dtype of the activations."""

    def mapped(path: tuple[Any, ...], leaf: Kernel) -> Kernel:
        names = [part.key for part in path]
        return function(leaf) if names[-1] == "kernel" and _FLOAT32_LAYERS.isdisjoint(names) else leaf

    return jax.tree_util.tree_map_with_path(mapped, params)
