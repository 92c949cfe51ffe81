"""BiT ResNet-v2: pre-activation bottlenecks, GroupNorm and weight standardisation.

The family of the paper's teachers (R152x2) and students (R50x1), and small relatives for small images. Layer and
parameter names are those of the published checkpoints, so loading one is a copy without renaming.

References:
    Kolesnikov et al., "Big Transfer (BiT)", ECCV 2020, section 3.
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, section 2.
"""

from __future__ import annotations

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp

STAGES = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALL_STAGES = {11: (1, 1, 1), 14: (1, 1, 1, 1), 20: (2, 2, 2)}

_LARGE_NAME = re.compile(r"bit_r(\d+)x(\d+)")
_SMALL_NAME = re.compile(r"bit_r(\d+)w(\d+)")


class GroupNorm(nn.Module):
    """Group normalisation over (H, W, channels of a group), with the biased variance; see `group_norm`."""

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises activations of shape (batch, height, width, channels)."""
        shape = (1, 1, 1, x.shape[-1])
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return group_norm(x, scale.reshape(-1), bias.reshape(-1), self.groups, self.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float) -> jax.Array:
    """Group normalisation as per-channel sums and one fused multiply-add.

    The activations are never reshaped to groups, which would copy them, and the gradient is written out in the same
    form (two per-channel sums, one fused expression), which XLA does not find by itself.

    Args:
        x: activations (batch, height, width, channels).
        scale: (channels,).
        bias: (channels,).
        groups: divides the channels.
        epsilon: added to the variance.

    Returns:
        The normalised activations, of the shape of `x`.

    References:
        Wu and He, "Group normalization", ECCV 2018, equation 1.
    """
    return _group_norm_forward(x, scale, bias, groups, epsilon)[0]


def _group_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float):
    pool = functools.partial(_mean_over_group, groups=groups, pixels=x.shape[1] * x.shape[2])
    mean = pool(x.sum(axis=(1, 2)))
    variance = jnp.maximum(pool(jnp.square(x).sum(axis=(1, 2))) - jnp.square(mean), 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    factor = inverse * scale[None, :]
    shift = bias[None, :] - mean * factor
    return x * factor[:, None, None, :] + shift[:, None, None, :], (x, mean, inverse, scale)


def _group_norm_backward(groups: int, epsilon: float, kept: tuple, gradient: jax.Array):
    x, mean, inverse, scale = kept
    pool = functools.partial(_mean_over_group, groups=groups, pixels=x.shape[1] * x.shape[2])
    total = gradient.sum(axis=(1, 2))
    correlation = ((gradient * x).sum(axis=(1, 2)) - mean * total) * inverse
    direct = inverse * scale[None, :]
    along = jnp.square(inverse) * pool(correlation * scale[None, :])
    constant = along * mean - inverse * pool(total * scale[None, :])
    to_x = gradient * direct[:, None, None, :] - x * along[:, None, None, :] + constant[:, None, None, :]
    return to_x, correlation.sum(axis=0), total.sum(axis=0)


def _mean_over_group(sums: jax.Array, groups: int, pixels: int) -> jax.Array:
    """Per-channel sums (batch, channels) to the mean over each channel's group, again (batch, channels)."""
    batch, channels = sums.shape
    per_group = sums.reshape(batch, groups, channels // groups).sum(axis=-1) / (pixels * (channels // groups))
    return jnp.repeat(per_group, channels // groups, axis=-1)


group_norm.defvjp(_group_norm_forward, _group_norm_backward)


class StandardizedConv(nn.Module):
    """A convolution without bias, with weights standardised over (H, W, input channels)."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    epsilon: float = 1e-10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        centred = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(axis=(0, 1, 2), keepdims=True) + self.epsilon)
        kernel = centred / deviation
        if (
            self.kernel_size == 1
        ):  # XLA:CPU runs a flat matrix product, and its gradient, 3-4 times faster than a 1x1 conv
            x = x[:, :: self.stride, :: self.stride]
            return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], self.features)
        pad = self.kernel_size // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(pad, pad), (pad, pad)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class RootBlock(nn.Module):
    """The stem: one standardised convolution, and for large images a 3x3/2 max-pool."""

    features: int
    kernel_size: int
    stride: int
    pool: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, colours) to (batch, height', width', features)."""
        x = StandardizedConv(self.features, self.kernel_size, self.stride, name="conv_root")(x)
        if not self.pool:
            return x
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])


class ResidualUnit(nn.Module):
    """A pre-activation bottleneck; a projection shortcut starts from the pre-activated input."""

    width: int
    stride: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, 4 * width)."""
        features = 4 * self.width
        shortcut = x
        x = nn.relu(GroupNorm(self.groups, name="gn1")(x))
        if shortcut.shape[-1] != features or self.stride != 1:
            shortcut = StandardizedConv(features, stride=self.stride, name="conv_proj")(x)
        x = StandardizedConv(self.width, name="conv1")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn2")(x))
        x = StandardizedConv(self.width, 3, self.stride, name="conv2")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn3")(x))
        return shortcut + StandardizedConv(features, name="conv3")(x)


class Stage(nn.Module):
    """Residual units at one resolution; the first one may reduce it."""

    units: int
    width: int
    stride: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, 4 * width)."""
        for index in range(self.units):
            stride = self.stride if index == 0 else 1
            x = ResidualUnit(self.width, stride, self.groups, name=f"unit{index + 1:02d}")(x)
        return x


class BiT(nn.Module):
    """A BiT ResNet-v2 from images to logits.

    Attributes:
        num_classes: length of the logits.
        stages: residual units in each stage.
        width: bottleneck width of the first stage; it doubles from stage to stage.
        groups: groups of every GroupNorm.
        stem: (kernel size, stride, max-pool after it) of the root block.
    """

    num_classes: int
    stages: tuple[int, ...]
    width: int
    groups: int = 32
    stem: tuple[int, int, bool] = (7, 2, True)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, colours), float32 in [-1, 1], to logits (batch, num_classes)."""
        x = RootBlock(self.width, *self.stem, name="root_block")(images)
        for index, units in enumerate(self.stages):
            stride = 1 if index == 0 else 2
            x = Stage(units, self.width * 2**index, stride, self.groups, name=f"block{index + 1}")(x)
        x = nn.relu(GroupNorm(self.groups, name="norm-pre-head")(x))
        features = x.mean(axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)


def create(name: str, num_classes: int) -> BiT | None:
    """Builds the BiT model of that name.

    Names are `bit_r{depth}x{factor}` for the paper's models (width 64 x factor, 7x7/2 stem with pooling) and
    `bit_r{depth}w{width}` for small images (5x5/2 stem without pooling, 8 groups).

    Returns:
        The module, or None if the name is not one of this family.
    """
    if match := _LARGE_NAME.fullmatch(name):
        depth, factor = map(int, match.groups())
        if depth in STAGES and 1 <= factor <= 4:
            return BiT(num_classes, STAGES[depth], 64 * factor)
    if match := _SMALL_NAME.fullmatch(name):
        depth, width = map(int, match.groups())
        if depth in SMALL_STAGES and width % 8 == 0 and 0 < width <= 64:
            return BiT(num_classes, SMALL_STAGES[depth], width, groups=8, stem=(5, 2, False))
    return None


def names() -> list[str]:
    """Names that `create` knows, small relatives given for the widths that the study uses."""
    large = [f"bit_r{depth}x{factor}" for depth in STAGES for factor in (1, 2, 3, 4)]
    small = [f"bit_r{depth}w{width}" for depth in SMALL_STAGES for width in (8, 16, 24, 32)]
    return large + small
