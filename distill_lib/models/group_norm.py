"""Group normalisation with few passes over memory, and a gradient written in the same form."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


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
    """Group normalisation as per-channel sums and one fused multiply-add.

    The activations are never reshaped to groups, which would copy them, and the gradient is written out in the same
    form (two per-channel sums, one fused expression), which XLA does not find by itself.

    Maps activations (batch, height, width, channels) to normalised ones of that shape and dtype, with scale and bias
    (channels,) in float32, as are sums, means and variances. `epsilon` is added to the variance (biased, as in Wu and
    He, "Group normalization", ECCV 2018, equation 1).
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
