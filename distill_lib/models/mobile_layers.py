"""What the mobile networks are built from: convolution, norm and activation; squeeze-excite; inverted residuals.

Sandler et al., CVPR 2018, section 3; Hu et al., CVPR 2018, section 3; Ioffe and Szegedy, ICML 2015, algorithms 1 and 2.
"""

from __future__ import annotations

import functools
import itertools
import operator
from dataclasses import dataclass, replace
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib.models.layers import GroupNorm, Pads, Params, by_platform, convolve, map_kernels, unit_output

GROUPS = 8  # of every GroupNorm: divides all widths of the mobile networks


@dataclass(frozen=True)
class Layers:
    """What all convolutions of a network have in common."""

    norm: str = "bn"  # BatchNorm; "gn" is GroupNorm
    epsilon: float = 1e-5  # added to the variance
    momentum: float = 0.9  # share of the old value in each update of BatchNorm's running statistics
    same: bool = False  # pads as TensorFlow's "SAME", where a stride of 2 puts more at the end, not both ends alike
    folded: bool = False  # BatchNorm is in the convolutions already, as in a frozen teacher; they then have a bias


class Conv(nn.Module):
    """A convolution in the dtype of its input; parameters are float32."""

    features: int
    layers: Layers
    kernel_size: int
    stride: int
    depthwise: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = 1 if self.depthwise else x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, inputs, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape).astype(x.dtype)
        pads: Pads = [(self.kernel_size // 2, self.kernel_size // 2)] * 2
        if self.layers.same:
            pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], [self.stride] * 2, "SAME")
        x = (depthwise if self.depthwise else convolve)(x, kernel, self.stride, pads)
        if not (self.layers.folded and self.layers.norm == "bn"):
            return x
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x + bias.astype(x.dtype).reshape(1, 1, 1, -1)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """A convolution of each channel with a kernel of its own; on CPUs a sum of shifted images is ten times as fast."""
    shifted = functools.partial(_shifted, stride=stride, pads=pads)
    grouped = functools.partial(convolve, stride=stride, pads=pads, groups=x.shape[-1])
    return by_platform(x, kernel, cpu=shifted, default=grouped)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> jax.Array:
    size = kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    height, width = ((side - size) // stride * stride + 1 for side in padded.shape[1:3])
    weights = kernel.astype(jnp.float32)
    terms = (
        padded[:, i : i + height : stride, j : j + width : stride] * weights[i, j][None, None]
        for i, j in itertools.product(range(size), repeat=2)
    )
    return functools.reduce(operator.add, terms).astype(x.dtype)


class ConvNorm(nn.Module):
    """A convolution, its norm and an activation: to (batch, height / stride, width / stride, features)."""

    features: int
    layers: Layers
    kernel_size: int = 1
    stride: int = 1
    activation: str = "identity"  # a name in `jax.nn`
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        layers = self.layers
        x = Conv(self.features, layers, self.kernel_size, self.stride, self.depthwise, name="conv")(x)
        if layers.norm == "gn":
            x = GroupNorm(GROUPS, layers.epsilon, name="norm")(x)
        elif not layers.folded:
            norm = nn.BatchNorm(not train, momentum=layers.momentum, epsilon=layers.epsilon, dtype=x.dtype, name="norm")
            x = norm(x)
        return getattr(jax.nn, self.activation)(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] that depends on the means of all channels, in float32."""

    reduced: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        means = x.mean(axis=(1, 2), dtype=jnp.float32)
        gates = nn.Dense(x.shape[-1], name="expand")(nn.relu(nn.Dense(self.reduced, name="reduce")(means)))
        return x * nn.hard_sigmoid(gates).astype(x.dtype)[:, None, None, :]


class Row(NamedTuple):
    """An inverted residual block, with the columns of MobileNetV3's tables 1 and 2."""

    kernel_size: int  # of the depthwise convolution, like the stride
    expanded: int  # channels of the depthwise convolution; no expansion where the block's input has as many
    features: int
    squeeze: bool  # whether there is a squeeze-excite
    activation: str
    stride: int


class InvertedResidual(nn.Module):
    """Expands the channels, filters each of them, and projects them to `row.features` without an activation."""

    row: Row
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        size, expanded, features, squeeze, activation, stride = self.row
        shortcut = x
        if expanded != x.shape[-1]:
            x = ConvNorm(expanded, self.layers, activation=activation, name="expand")(x, train)
        x = ConvNorm(expanded, self.layers, size, stride, activation, depthwise=True, name="depthwise")(x, train)
        if squeeze:
            x = SqueezeExcite(divisible_by_8(expanded / 4), name="squeeze")(x)
        x = ConvNorm(features, self.layers, name="project")(x, train)
        return unit_output(shortcut + x if x.shape == shortcut.shape else x)


class Stage(nn.Module):
    """Blocks one after the other."""

    rows: tuple[Row, ...]
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for number, row in enumerate(self.rows, 1):
            x = InvertedResidual(row, self.layers, name=f"block{number}")(x, train)
        return x


class MobileNet(nn.Module):
    """A mobile network of width 1, from images to logits."""

    num_classes: int
    stem: int  # channels of the first convolution, 3x3/2
    stages: tuple[tuple[Row, ...], ...]
    last: int  # channels of the last convolution
    hidden: int | None = None  # width of the hidden layer after pooling, if there is one
    activation: str = "relu"  # of these three
    layers: Layers = Layers()
    dtype: str = "float32"  # of the activations

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, num_classes)."""
        layers, activation = self.layers, self.activation
        x = ConvNorm(self.stem, layers, 3, 2, activation, name="stem")(images.astype(self.dtype), train)
        for number, rows in enumerate(self.stages, 1):
            x = Stage(rows, layers, name=f"stage{number}")(x, train)
        x = ConvNorm(self.last, layers, activation=activation, name="last")(x, train)
        features = x.mean(axis=(1, 2), dtype=jnp.float32)
        if self.hidden is not None:
            features = getattr(jax.nn, activation)(nn.Dense(self.hidden, name="hidden")(features))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)

    def fold(self, variables: dict[str, Params]) -> tuple[MobileNet, dict[str, Params]]:
        """Moves BatchNorm into the convolutions, whose kernels are kept in the dtype they are used in."""
        params = _fold_batch_norm(variables["params"], variables.get("batch_stats", {}), self.layers.epsilon)
        params = map_kernels(lambda kernel: kernel.astype(jnp.dtype(self.dtype)), params)
        return self.clone(layers=replace(self.layers, folded=True)), {"params": params}


def divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that would lose more than 10 % (MobileNet's rule for widths)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _fold_batch_norm(params: Params, stats: Params, epsilon: float) -> Params:
    """Moves every BatchNorm, at inference, into the kernel and a bias of the convolution beside it."""
    if "norm" not in stats:
        return {
            name: _fold_batch_norm(value, stats[name], epsilon) if name in stats else value
            for name, value in params.items()
        }
    norm, running = params["norm"], stats["norm"]
    factor = norm["scale"] / (running["var"] + epsilon) ** 0.5  # stays NumPy where that is what it is given
    kernel = params["conv"]["kernel"] * factor.reshape(1, 1, 1, -1)
    return {"conv": {"kernel": kernel, "bias": norm["bias"] - running["mean"] * factor}}
