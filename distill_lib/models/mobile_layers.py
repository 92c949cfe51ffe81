"""What the mobile networks are built from: convolution, norm and activation; squeeze-excite; inverted residuals.

References:
    Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018, section 3.
    Hu et al., "Squeeze-and-excitation networks", CVPR 2018, section 3.
    Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from distill_lib.models import UNIT
from distill_lib.models.group_norm import GroupNorm

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_swish": nn.hard_swish,
}
Pads = Sequence[tuple[int, int]]
GROUPS = 8  # of every GroupNorm: divides all widths of the mobile networks


@dataclass(frozen=True)
class Layers:
    """What all convolutions of a network have in common.

    Attributes:
        norm: "bn" (BatchNorm) or "gn" (GroupNorm).
        epsilon: added to the variance.
        momentum: share of the old value in each update of BatchNorm's running statistics.
        same: pads as TensorFlow's "SAME", where a stride of 2 puts more at the end; otherwise both ends alike.
        folded: whether BatchNorm is already in the convolution, which then has a bias.
    """

    norm: str = "bn"
    epsilon: float = 1e-5
    momentum: float = 0.9
    same: bool = False
    folded: bool = False


class Conv(nn.Module):
    """A convolution, dense or depthwise, in the dtype of its input; parameters are float32.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: of the convolution.
        depthwise: whether every channel has a kernel of its own; `features` is then the number of input channels.
        same: see `Layers`.
        use_bias: whether a bias is added.
    """

    features: int
    kernel_size: int
    stride: int
    depthwise: bool
    same: bool
    use_bias: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        inputs = 1 if self.depthwise else x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape).astype(x.dtype)
        if self.kernel_size == self.stride == 1 and not self.depthwise:
            # XLA:CPU runs a flat matrix product much faster than this convolution
            x = (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], self.features)
        else:
            pads = [_pads(side, self.kernel_size, self.stride, self.same) for side in x.shape[1:3]]
            x = (depthwise if self.depthwise else convolve)(x, kernel, self.stride, pads)
        if not self.use_bias:
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x + bias.astype(x.dtype).reshape(1, 1, 1, -1)


def convolve(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, groups: int = 1) -> jax.Array:
    """A convolution of (batch, height, width, channels) with a kernel (height, width, channels / groups, features)."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """A convolution of each channel with a kernel of its own.

    XLA:CPU has no fast program for grouped convolutions; there, a sum of shifted images is about ten times as fast.

    Args:
        x: (batch, height, width, channels).
        kernel: (height, width, 1, channels).
        stride: of the convolution.
        pads: zeros (before, after) for height and width.

    Returns:
        (batch, height / stride, width / stride, channels), of the dtype of `x`.
    """

    def shifted(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _shifted(x, kernel, stride, pads)

    def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, stride, pads, groups=x.shape[-1])

    return jax.lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """The depthwise convolution as a sum, in float32, over the positions in the kernel."""
    size = kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    height, width = ((side - size) // stride * stride + 1 for side in padded.shape[1:3])
    weights = kernel.astype(jnp.float32)
    terms = (
        padded[:, i : i + height : stride, j : j + width : stride] * weights[i, j][None, None]
        for i, j in itertools.product(range(size), repeat=2)
    )
    return functools.reduce(operator.add, terms).astype(x.dtype)


def _pads(side: int, size: int, stride: int, same: bool) -> tuple[int, int]:
    """Zeros before and after an image of that side; `same` as TensorFlow counts them."""
    if not same:
        return size // 2, size // 2
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """A convolution, its norm and an activation.

    Attributes:
        features: output channels.
        layers: what the network's convolutions have in common.
        kernel_size: height and width of the kernel.
        stride: of the convolution.
        activation: a name in `ACTIVATIONS`.
        depthwise: see `Conv`.
    """

    features: int
    layers: Layers
    kernel_size: int = 1
    stride: int = 1
    activation: str = "none"
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        layers = self.layers
        bias = layers.folded and layers.norm == "bn"
        conv = Conv(self.features, self.kernel_size, self.stride, self.depthwise, layers.same, bias, name="conv")
        x = conv(x)
        if layers.norm == "gn":
            x = GroupNorm(GROUPS, layers.epsilon, name="norm")(x)
        elif not layers.folded:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=layers.momentum,
                epsilon=layers.epsilon,
                dtype=x.dtype,
                name="norm",
            )(x)
        return ACTIVATIONS[self.activation](x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] that depends on the means of all channels."""

    reduced: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels) to the same shape and dtype; the gates are computed in float32."""
        means = x.mean(axis=(1, 2), dtype=jnp.float32)
        gates = nn.Dense(x.shape[-1], name="expand")(nn.relu(nn.Dense(self.reduced, name="reduce")(means)))
        return x * nn.hard_sigmoid(gates).astype(x.dtype)[:, None, None, :]


class Row(NamedTuple):
    """An inverted residual block, with the columns of MobileNetV3's tables 1 and 2.

    Attributes:
        kernel_size: of the depthwise convolution.
        expanded: channels of the depthwise convolution; no expansion where the block's input has as many.
        features: output channels.
        squeeze: whether there is a squeeze-excite.
        activation: a name in `ACTIVATIONS`.
        stride: of the depthwise convolution.
    """

    kernel_size: int
    expanded: int
    features: int
    squeeze: bool
    activation: str
    stride: int


class InvertedResidual(nn.Module):
    """Expands the channels, filters each of them, and projects them without an activation."""

    row: Row
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        size, expanded, features, squeeze, activation, stride = self.row
        shortcut = x
        if expanded != x.shape[-1]:
            x = ConvNorm(expanded, self.layers, activation=activation, name="expand")(x, train)
        x = ConvNorm(expanded, self.layers, size, stride, activation, depthwise=True, name="depthwise")(x, train)
        if squeeze:
            x = SqueezeExcite(divisible_by_8(expanded / 4), name="squeeze")(x)
        x = ConvNorm(features, self.layers, name="project")(x, train)
        return checkpoint_name(shortcut + x if x.shape == shortcut.shape else x, UNIT)


class Stage(nn.Module):
    """Blocks one after the other."""

    rows: tuple[Row, ...]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (batch, height, width, channels) to (batch, height / stride, width / stride, features)."""
        for number, row in enumerate(self.rows, 1):
            x = InvertedResidual(row, self.layers, name=f"block{number}")(x, train)
        return x


def stages(rows: tuple[Row, ...]) -> list[tuple[Row, ...]]:
    """Cuts a table into stages: neighbouring rows with equally many output channels."""
    return [tuple(group) for _, group in itertools.groupby(rows, key=lambda row: row.features)]


def divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that would lose more than 10 % (MobileNet's rule for widths)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def fold_batch_norm(variables: dict, epsilon: float) -> dict:
    """Moves every BatchNorm, at inference, into the kernel and a bias of the convolution before it.

    Args:
        variables: "params" and "batch_stats" of a network; a convolution and its norm are neighbours called "conv" and
            "norm", at any depth. Without "batch_stats" there is nothing to fold.
        epsilon: added to the variance.

    Returns:
        Parameters with (conv: kernel, bias) instead of (conv: kernel; norm: scale, bias); all others unchanged.
    """
    return _folded(variables["params"], variables.get("batch_stats", {}), epsilon)


def _folded(params: dict, stats: dict, epsilon: float) -> dict:
    found = {name: _folded(value, stats[name], epsilon) if name in stats else value for name, value in params.items()}
    if "mean" not in stats.get("norm", {}):
        return found
    kernel, norm, running = params["conv"]["kernel"], found.pop("norm"), stats["norm"]
    factor = norm["scale"] / (running["var"] + epsilon) ** 0.5  # stays NumPy where that is what it is given
    bias = norm["bias"] - running["mean"] * factor
    return found | {"conv": {"kernel": kernel * factor.reshape(1, 1, 1, -1), "bias": bias}}


def cast_kernels(params: dict, dtype: str) -> dict:
    """Keeps the kernels of convolutions in the dtype they are used in; all other parameters stay float32."""

    def cast(path: tuple, leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.dtype(dtype)) if leaf.ndim == 4 and path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(cast, params)
