"""What the families share: convolutions, group normalisation, what rematerialisation keeps, and frozen kernels."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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
    if kernel.shape[:2] == (1, 1) and stride == groups == 1:
        return product(x, kernel)
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


class GroupNorm(nn.Module):
    """Group normalisation of (batch, height, width, channels) over (H, W, channels of a group); see `group_norm`."""

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, 1, x.shape[-1])
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return group_norm(x, scale.reshape(-1), bias.reshape(-1), self.groups, self.epsilon)


Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float) -> jax.Array:
    """Group normalisation (Wu and He, ECCV 2018, equation 1) as per-channel sums and one fused multiply-add.

    Activations (batch, height, width, channels) are never reshaped to groups, which would copy them, and the gradient
    has the same form, which XLA does not find. Scale and bias (channels,), sums, means and variances are float32.
    """
    return _group_norm_forward(x, scale, bias, groups, epsilon)[0]


def _group_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, Kept]:
    wide = x.astype(jnp.float32)
    pool = functools.partial(_mean_over_group, groups=groups, pixels=x.shape[1] * x.shape[2])
    mean = pool(wide.sum(axis=(1, 2)))
    variance = jnp.maximum(pool(jnp.square(wide).sum(axis=(1, 2))) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    factor = inverse * scale[None, :]
    shift = bias[None, :] - mean * factor
    normalised = wide * factor[:, None, None, :] + shift[:, None, None, :]
    return normalised.astype(x.dtype), (x, mean, inverse, scale)


def _group_norm_backward(
    groups: int, epsilon: float, kept: Kept, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = kept
    wide, gradient = x.astype(jnp.float32), gradient.astype(jnp.float32)
    pool = functools.partial(_mean_over_group, groups=groups, pixels=x.shape[1] * x.shape[2])
    total = gradient.sum(axis=(1, 2))
    correlation = ((gradient * wide).sum(axis=(1, 2)) - mean * total) * inverse
    direct = inverse * scale[None, :]
    along = jnp.square(inverse) * pool(correlation * scale[None, :])
    constant = along * mean - inverse * pool(total * scale[None, :])
    to_x = gradient * direct[:, None, None, :] - wide * along[:, None, None, :] + constant[:, None, None, :]
    return to_x.astype(x.dtype), correlation.sum(axis=0), total.sum(axis=0)


def _mean_over_group(sums: jax.Array, groups: int, pixels: int) -> jax.Array:
    """Per-channel sums (batch, channels) to the mean over each channel's group, again (batch, channels)."""
    batch, channels = sums.shape
    per_group = sums.reshape(batch, groups, channels // groups).sum(axis=-1) / (pixels * (channels // groups))
    return jnp.repeat(per_group, channels // groups, axis=-1)


group_norm.defvjp(_group_norm_forward, _group_norm_backward)
