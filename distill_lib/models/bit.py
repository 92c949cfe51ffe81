"""BiT ResNet-v2, the paper's teachers and students: pre-activation bottlenecks, GroupNorm and weight standardisation.

Layer and parameter names are those of the published checkpoints. Kolesnikov et al., "Big Transfer (BiT)", ECCV 2020,
section 3; Beyer et al., CVPR 2022, section 2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib.models.layers import (
    GroupNorm,
    Kernel,
    Params,
    by_platform,
    convolve,
    map_kernels,
    product,
    unit_output,
)

STAGES = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALL_STAGES = {11: (1, 1, 1), 14: (1, 1, 1, 1), 20: (2, 2, 2)}


class StandardizedConv(nn.Module):
    """A convolution without bias, with weights standardised over (H, W, input channels), or `folded`: already so."""

    features: int
    kernel_size: int = 1
    stride: int = 1
    folded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = jnp.asarray(kernel if self.folded else standardize(kernel), x.dtype)
        pad = self.kernel_size // 2
        convolved = functools.partial(convolve, stride=self.stride, pads=[(pad, pad)] * 2)
        if self.kernel_size > 1 or self.stride == 1:
            return convolved(x, kernel)
        # On GPUs the product of a strided slice aborts XLA's Triton fusion (jax 0.10 and 0.11).
        strided = functools.partial(product, stride=self.stride)
        return by_platform(x, kernel, cpu=strided, default=convolved)


def standardize(kernel: Kernel, epsilon: float = 1e-10) -> Kernel:
    """Weight standardisation (Qiao et al., 2019): mean 0, variance 1 over (H, W, in) of a kernel (H, W, in, out)."""
    sqrt = np.sqrt if isinstance(kernel, np.ndarray) else jnp.sqrt
    centred = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
    return centred / sqrt((centred * centred).mean(axis=(0, 1, 2), keepdims=True) + epsilon)


class RootBlock(nn.Module):
    """The stem: one standardised convolution to `features` channels, and for large images a 3x3/2 max-pool."""

    features: int
    kernel_size: int
    stride: int
    pool: bool
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = StandardizedConv(self.features, self.kernel_size, self.stride, self.folded, name="conv_root")(x)
        if not self.pool:
            return x
        # Zeros at the border, as BiT was trained and as timm evaluates the published files; big_vision's is -infinity.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return nn.max_pool(x, (3, 3), strides=(2, 2))


class ResidualUnit(nn.Module):
    """A pre-activation bottleneck to 4 * width channels; a projection shortcut starts from the pre-activated input."""

    width: int
    stride: int
    groups: int
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = 4 * self.width
        shortcut = x
        x = nn.relu(GroupNorm(self.groups, name="gn1")(x))
        if shortcut.shape[-1] != features or self.stride != 1:
            shortcut = StandardizedConv(features, 1, self.stride, self.folded, name="conv_proj")(x)
        x = StandardizedConv(self.width, 1, 1, self.folded, name="conv1")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn2")(x))
        x = StandardizedConv(self.width, 3, self.stride, self.folded, name="conv2")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn3")(x))
        return unit_output(shortcut + StandardizedConv(features, 1, 1, self.folded, name="conv3")(x))


class Stage(nn.Module):
    """Residual units at one resolution, to 4 * width channels; the first one may reduce it."""

    units: int
    width: int
    stride: int
    groups: int
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.units):
            stride = self.stride if index == 0 else 1
            x = ResidualUnit(self.width, stride, self.groups, self.folded, name=f"unit{index + 1:02d}")(x)
        return x


class BiT(nn.Module):
    """A BiT ResNet-v2 from images to logits."""

    num_classes: int
    stages: tuple[int, ...]  # residual units in each stage
    width: int  # of the bottlenecks of the first stage; it doubles from stage to stage
    groups: int = 32  # of every GroupNorm
    stem: tuple[int, int, bool] = (7, 2, True)  # kernel size, stride, max-pool after it
    dtype: str = "float32"  # of the activations
    folded: bool = False  # whether the weights are standardised already, as in a frozen teacher

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, num_classes); `train` changes nothing."""
        x = RootBlock(self.width, *self.stem, self.folded, name="root_block")(images.astype(self.dtype))
        for index, units in enumerate(self.stages):
            stride, width = min(index + 1, 2), self.width * 2**index
            x = Stage(units, width, stride, self.groups, self.folded, name=f"block{index + 1}")(x)
        x = nn.relu(GroupNorm(self.groups, name="norm-pre-head")(x))
        features = x.mean(axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)

    def fold(self, variables: dict[str, Params]) -> tuple[BiT, dict[str, Params]]:
        """Standardises the weights once; kernels are kept in the dtype they are used in."""
        frozen = map_kernels(lambda kernel: standardize(kernel).astype(jnp.dtype(self.dtype)), variables)
        return self.clone(folded=True), frozen


def builders() -> Mapping[str, Callable[..., BiT]]:
    """`bit_r{depth}x{factor}`, the paper's, with a 7x7/2 stem and pooling; `bit_r{depth}w{width}` for small images."""
    large = {
        f"bit_r{depth}x{factor}": functools.partial(BiT, stages=stages, width=64 * factor)
        for depth, stages in STAGES.items()
        for factor in (1, 2, 3, 4)
    }
    small = {
        f"bit_r{depth}w{width}": functools.partial(BiT, stages=stages, width=width, groups=8, stem=(5, 2, False))
        for depth, stages in SMALL_STAGES.items()
        for width in range(8, 65, 8)
    }
    return large | small
