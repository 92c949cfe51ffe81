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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from distill_lib.models import UNIT
from distill_lib.models.group_norm import GroupNorm

STAGES = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SMALL_STAGES = {11: (1, 1, 1), 14: (1, 1, 1, 1), 20: (2, 2, 2)}

_LARGE_NAME = re.compile(r"bit_r(\d+)x(\d+)")
_SMALL_NAME = re.compile(r"bit_r(\d+)w(\d+)")


class StandardizedConv(nn.Module):
    """A convolution without bias, with weights standardised over (H, W, input channels).

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: of the convolution.
        folded: whether the kernel is standardised already.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    folded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        kernel = jnp.asarray(kernel if self.folded else standardize(kernel), x.dtype)
        convolved = functools.partial(_convolved, stride=self.stride)
        if self.kernel_size > 1:
            return convolved(x, kernel)
        product = functools.partial(_product, stride=self.stride)
        if self.stride == 1:
            return product(x, kernel)
        # On GPUs the product of a strided slice aborts XLA's Triton fusion (jax 0.10 and 0.11).
        return jax.lax.platform_dependent(x, kernel, cpu=product, default=convolved)


def _convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _product(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A 1x1 convolution as a flat matrix product, which XLA:CPU runs, with its gradient, 3-4 times faster."""
    x = x[:, ::stride, ::stride]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def standardize(kernel: jax.Array | np.ndarray, epsilon: float = 1e-10) -> jax.Array | np.ndarray:
    """Weight standardisation: mean 0 and variance 1 over (H, W, input channels) of a kernel (H, W, in, out).

    NumPy arrays stay NumPy arrays: loading a teacher compiles nothing.

    References:
        Qiao et al., "Micro-batch training with batch-channel normalization and weight standardization", 2019.
    """
    sqrt = np.sqrt if isinstance(kernel, np.ndarray) else jnp.sqrt
    centred = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
    return centred / sqrt((centred * centred).mean(axis=(0, 1, 2), keepdims=True) + epsilon)


class RootBlock(nn.Module):
    """The stem: one standardised convolution, and for large images a 3x3/2 max-pool."""

    features: int
    kernel_size: int
    stride: int
    pool: bool
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels) to (batch, height', width', features)."""
        x = StandardizedConv(self.features, self.kernel_size, self.stride, self.folded, name="conv_root")(x)
        if not self.pool:
            return x
        # Zeros at the border, as BiT was trained and as timm evaluates the published files; big_vision's is -infinity.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return nn.max_pool(x, (3, 3), strides=(2, 2))


class ResidualUnit(nn.Module):
    """A pre-activation bottleneck; a projection shortcut starts from the pre-activated input."""

    width: int
    stride: int
    groups: int
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, 4 * width)."""
        features = 4 * self.width
        shortcut = x
        x = nn.relu(GroupNorm(self.groups, name="gn1")(x))
        if shortcut.shape[-1] != features or self.stride != 1:
            shortcut = StandardizedConv(features, 1, self.stride, self.folded, name="conv_proj")(x)
        x = StandardizedConv(self.width, 1, 1, self.folded, name="conv1")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn2")(x))
        x = StandardizedConv(self.width, 3, self.stride, self.folded, name="conv2")(x)
        x = nn.relu(GroupNorm(self.groups, name="gn3")(x))
        return checkpoint_name(shortcut + StandardizedConv(features, 1, 1, self.folded, name="conv3")(x), UNIT)


class Stage(nn.Module):
    """Residual units at one resolution; the first one may reduce it."""

    units: int
    width: int
    stride: int
    groups: int
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, 4 * width)."""
        for index in range(self.units):
            stride = self.stride if index == 0 else 1
            x = ResidualUnit(self.width, stride, self.groups, self.folded, name=f"unit{index + 1:02d}")(x)
        return x


class BiT(nn.Module):
    """A BiT ResNet-v2 from images to logits.

    Attributes:
        num_classes: length of the logits.
        stages: residual units in each stage.
        width: bottleneck width of the first stage; it doubles from stage to stage.
        groups: groups of every GroupNorm.
        stem: (kernel size, stride, max-pool after it) of the root block.
        dtype: of the activations.
        folded: whether the weights are standardised already, as in a frozen teacher.
    """

    num_classes: int
    stages: tuple[int, ...]
    width: int
    groups: int = 32
    stem: tuple[int, int, bool] = (7, 2, True)
    dtype: str = "float32"
    folded: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, num_classes).

        Training and inference are the same thing for this family, which is why `train` changes nothing.
        """
        x = RootBlock(self.width, *self.stem, self.folded, name="root_block")(images.astype(self.dtype))
        for index, units in enumerate(self.stages):
            stride = 1 if index == 0 else 2
            width = self.width * 2**index
            x = Stage(units, width, stride, self.groups, self.folded, name=f"block{index + 1}")(x)
        x = nn.relu(GroupNorm(self.groups, name="norm-pre-head")(x))
        features = x.mean(axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)

    def fold(self, variables: dict) -> tuple[BiT, dict]:
        """Standardises the weights once; kernels are kept in the dtype they are used in."""

        def folded(path: tuple, leaf: Any) -> Any:
            dtype = jnp.dtype(self.dtype)
            return standardize(leaf).astype(dtype) if leaf.ndim == 4 and path[-1].key == "kernel" else leaf

        return self.clone(folded=True), jax.tree_util.tree_map_with_path(folded, variables)


def create(name: str, num_classes: int, dtype: str = "float32") -> BiT | None:
    """Builds the BiT model of that name.

    Names are `bit_r{depth}x{factor}` for the paper's models (width 64 x factor, 7x7/2 stem with pooling) and
    `bit_r{depth}w{width}` for small images (5x5/2 stem without pooling, 8 groups).

    Returns:
        The module, or None if the name is not one of this family.
    """
    if match := _LARGE_NAME.fullmatch(name):
        depth, factor = map(int, match.groups())
        if depth in STAGES and 1 <= factor <= 4:
            return BiT(num_classes, STAGES[depth], 64 * factor, dtype=dtype)
    if match := _SMALL_NAME.fullmatch(name):
        depth, width = map(int, match.groups())
        if depth in SMALL_STAGES and width % 8 == 0 and 0 < width <= 64:
            return BiT(num_classes, SMALL_STAGES[depth], width, groups=8, stem=(5, 2, False), dtype=dtype)
    return None


def names() -> list[str]:
    """Names that `create` knows, small relatives given for the widths that the study uses."""
    large = [f"bit_r{depth}x{factor}" for depth in STAGES for factor in (1, 2, 3, 4)]
    small = [f"bit_r{depth}w{width}" for depth in SMALL_STAGES for width in (8, 16, 24, 32)]
    return large + small
