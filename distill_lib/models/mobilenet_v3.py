"""MobileNet v3, Large and Small: the student that the paper trains beside ResNet-50.

With GroupNorm (`_gn`), which needs no statistics of the batch, as the paper's student has it; and with BatchNorm
(`_bn`), as it was published.

References:
    Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5 and tables 1 and 2.
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022 (its MobileNet student).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib.models.mobile_layers import ConvNorm, Layers, Row, Stage, cast_kernels, fold_batch_norm, stages

RE, HS = "relu", "hard_swish"


class Size(NamedTuple):
    """A published network.

    Attributes:
        rows: its blocks.
        last: channels of the last convolution.
        hidden: width of the hidden layer after pooling.
    """

    rows: tuple[Row, ...]
    last: int
    hidden: int


LARGE = Size(  # table 1
    rows=(
        # kernel, exp size, out, SE, NL, s
        Row(3, 16, 16, False, RE, 1),
        Row(3, 64, 24, False, RE, 2),
        Row(3, 72, 24, False, RE, 1),
        Row(5, 72, 40, True, RE, 2),
        Row(5, 120, 40, True, RE, 1),
        Row(5, 120, 40, True, RE, 1),
        Row(3, 240, 80, False, HS, 2),
        Row(3, 200, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 480, 112, True, HS, 1),
        Row(3, 672, 112, True, HS, 1),
        Row(5, 672, 160, True, HS, 2),
        Row(5, 960, 160, True, HS, 1),
        Row(5, 960, 160, True, HS, 1),
    ),
    last=960,
    hidden=1280,
)
SMALL = Size(  # table 2; without the squeeze-excite after the last convolution, which the published weights do not have
    rows=(
        # kernel, exp size, out, SE, NL, s
        Row(3, 16, 16, True, RE, 2),
        Row(3, 72, 24, False, RE, 2),
        Row(3, 88, 24, False, RE, 1),
        Row(5, 96, 40, True, HS, 2),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 120, 48, True, HS, 1),
        Row(5, 144, 48, True, HS, 1),
        Row(5, 288, 96, True, HS, 2),
        Row(5, 576, 96, True, HS, 1),
        Row(5, 576, 96, True, HS, 1),
    ),
    last=576,
    hidden=1024,
)
SIZES = {"large": LARGE, "small": SMALL}
NORMS = ("gn", "bn")


class MobileNetV3(nn.Module):
    """MobileNet v3 of width 1, from images to logits.

    Attributes:
        num_classes: length of the logits.
        size: blocks and widths.
        norm: "gn" (GroupNorm, 8 groups) or "bn" (BatchNorm).
        dtype: of the activations.
        folded: whether BatchNorm is already in the convolutions, as in a frozen teacher.
    """

    num_classes: int
    size: Size
    norm: str = "gn"
    dtype: str = "float32"
    folded: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, num_classes).

        With BatchNorm, `train` uses the statistics of the batch and updates the running ones.
        """
        layers = self._layers()
        x = ConvNorm(16, layers, 3, 2, HS, name="stem")(images.astype(self.dtype), train)
        for number, rows in enumerate(stages(self.size.rows), 1):
            x = Stage(rows, layers, name=f"stage{number}")(x, train)
        x = ConvNorm(self.size.last, layers, activation=HS, name="last")(x, train)
        pooled = x.mean(axis=(1, 2), dtype=jnp.float32)
        features = nn.hard_swish(nn.Dense(self.size.hidden, name="hidden")(pooled))
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(features)

    def fold(self, variables: dict) -> tuple[MobileNetV3, dict]:
        """Moves BatchNorm into the convolutions, whose kernels are kept in the dtype they are used in."""
        params = fold_batch_norm(variables, self._layers().epsilon)
        return self.clone(folded=True), {"params": cast_kernels(params, self.dtype)}

    def _layers(self) -> Layers:
        return Layers(norm=self.norm, folded=self.folded)


def create(name: str, num_classes: int, dtype: str = "float32") -> MobileNetV3 | None:
    """Builds the model of that name, `mobilenet_v3_{large,small}_{gn,bn}`; None if it is not one of this family."""
    if name not in names():
        return None
    size, norm = name.split("_")[2:]
    return MobileNetV3(num_classes, SIZES[size], norm, dtype=dtype)


def names() -> list[str]:
    """Names that `create` knows."""
    return [f"mobilenet_v3_{size}_{norm}" for size in SIZES for norm in NORMS]
