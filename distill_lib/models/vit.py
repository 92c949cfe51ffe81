"""Vision Transformers: patches of 16 x 16 pixels, or fewer, as words, a class token, pre-norm encoder blocks.

Parameter names and shapes are those of the published AugReg files, and GELU is the exact one, as in timm. Dosovitskiy
et al., ICLR 2021, section 3.1; Touvron et al., ICML 2021, table 1 (sizes); Steiner et al., TMLR 2022 (AugReg).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib.errors import DistillError
from distill_lib.models.layers import Params, map_kernels, unit_output

WIDTHS = {"vit_ti16": 192, "vit_s16": 384, "vit_b16": 768}
HEAD_WIDTH = 64

_INITIALISED: dict[str, Any] = {
    "kernel_init": nn.initializers.xavier_uniform(),
    "bias_init": nn.initializers.normal(1e-6),
}


class PositionEmbedding(nn.Module):
    """Adds a learned vector to every token of (batch, 1 + patches, width)."""

    dtype: str

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        shape = (1, *tokens.shape[1:])
        stored: jax.Array | None = self.get_variable("params", "pos_embedding")
        if stored is not None and stored.shape != shape:
            raise DistillError(
                f"the position embedding has shape {stored.shape}, and these images need {shape}; "
                "resize it to their side with models.vit.resize_positions."
            )
        return tokens + self.param("pos_embedding", nn.initializers.normal(0.02), shape).astype(self.dtype)


class Mlp(nn.Module):
    """Two dense layers for each token, the hidden one four times as wide, with the exact GELU between them."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden, output = (nn.Dense(times * x.shape[-1], dtype=self.dtype, **_INITIALISED) for times in (4, 1))
        return output(nn.gelu(hidden(x), approximate=False))


class Block(nn.Module):
    """One encoder block: attention and MLP, each on normalised tokens (batch, tokens, width) and added to them."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(1e-6, dtype=self.dtype, name="LayerNorm_0")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            attention_fn=jax.nn.dot_product_attention,  # its softmax is float32 whatever the dtype
            name="MultiHeadDotProductAttention_1",
            **_INITIALISED,
        )
        x = x + attention(y)
        y = nn.LayerNorm(1e-6, dtype=self.dtype, name="LayerNorm_2")(x)
        return unit_output(x + Mlp(self.dtype, name="MlpBlock_3")(y))


class Encoder(nn.Module):
    """Position embedding, blocks, and a last normalisation, which gives float32 tokens (batch, tokens, width)."""

    depth: int
    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = PositionEmbedding(self.dtype, name="posembed_input")(x)
        for index in range(self.depth):
            x = Block(self.heads, self.dtype, name=f"encoderblock_{index}")(x)
        return nn.LayerNorm(1e-6, dtype="float32", name="encoder_norm")(x)


class ViT(nn.Module):
    """A Vision Transformer from images to logits."""

    num_classes: int
    width: int  # length of a token
    heads: int  # of attention; they divide the width
    depth: int = 12  # encoder blocks
    patch: int = 16  # side in pixels
    dtype: str = "float32"  # of the activations; parameters, LayerNorm's statistics, softmax and logits are float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images (batch, side, side, channels) to logits; DistillError unless they are squares of whole patches."""
        batch, height, width = images.shape[:3]
        if height != width or height % self.patch or not height:
            raise DistillError(
                f"images of {height} x {width} pixels are not squares of whole patches; "
                f"choose a resolution that {self.patch} divides."
            )
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, padding="VALID", dtype=self.dtype, name="embedding")(images)
        token = self.param("cls", nn.initializers.zeros, (1, 1, self.width)).astype(self.dtype)
        token = jnp.broadcast_to(token, (batch, 1, self.width))
        x = jnp.concatenate([token, x.reshape(batch, -1, self.width)], axis=1)
        x = Encoder(self.depth, self.heads, self.dtype, name="Transformer")(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, name="head")(x[:, 0])

    def fold(self, variables: dict[str, Params]) -> tuple[ViT, dict[str, Params]]:
        """Keeps kernels in the dtype they are used in; there is nothing else to compute once."""
        return self, map_kernels(lambda kernel: kernel.astype(self.dtype), variables)


def resize_positions(stored: jax.Array | np.ndarray, patches: int) -> jax.Array:
    """A position embedding (1, 1 + old patches, width) for images of so many patches a side.

    The grid is interpolated bilinearly, as timm does; DistillError if the old one is not of a square.
    """
    old = math.isqrt(stored.shape[1] - 1)
    if old**2 != stored.shape[1] - 1:
        raise DistillError(
            f"a position embedding of {stored.shape[1]} tokens is not a square and a class token; get another file."
        )
    grid = jnp.asarray(stored)[0, 1:].reshape(old, old, -1)
    grid = jax.image.resize(grid, (patches, patches, grid.shape[-1]), "bilinear", antialias=False)
    return jnp.concatenate([jnp.asarray(stored)[:, :1], grid.reshape(1, patches * patches, -1)], axis=1)


def builders() -> Mapping[str, Callable[..., ViT]]:
    """The published ones, and `vit_d{depth}w{width}p{patch}` for small images, with heads of 16 channels."""
    published = {name: functools.partial(ViT, width=width, heads=width // HEAD_WIDTH) for name, width in WIDTHS.items()}
    small = {
        f"vit_d{depth}w{width}p{patch}": functools.partial(
            ViT, width=width, heads=width // 16, depth=depth, patch=patch
        )
        for depth, width, patch in itertools.product((4, 6), (32, 48, 64), (4, 7))
    }
    return published | small
