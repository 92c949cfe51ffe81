"""Networks that benchmarks time: each with random weights, a batch of random images, and its compiled programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from distill_lib import models
from distill_lib.models.group_norm import GroupNorm

SIZES = {  # classes, images, side in pixels, colours
    "bit_r11w8": (10, 128, 28, 1),
    "bit_r11w24": (10, 128, 28, 1),
    "bit_r50x1": (1000, 8, 128, 3),
    "bit_r152x2": (1000, 4, 128, 3),
    "mobilenet_v3_large_bn": (1000, 8, 224, 3),
    "efficientnet_lite0": (1000, 8, 224, 3),
}


@dataclass(frozen=True)
class Network:
    """A network with variables, and images (batch, side, side, colours) in [-1, 1]."""

    model: nn.Module
    variables: Any
    images: jax.Array

    def folded(self) -> Network:
        """As it is frozen."""
        model, variables = models.fold(self.model, self.variables)
        return dataclasses.replace(self, model=model, variables=variables)

    def forward(self) -> Program:
        """The program of its logits."""
        run = jax.jit(lambda variables, images: models.logits(self.model, variables, images))
        return Program(run.lower(self.variables, self.images).compile(), (self.variables, self.images))

    def gradient(self, *, norms: bool = True) -> Program:
        """The program of a loss and its gradient, with every GroupNorm or with none."""
        params = self.variables["params"]

        def loss(params: dict, images: jax.Array) -> jax.Array:
            with nn.intercept_methods(_call if norms else _skip):
                logits, _ = models.train_logits(self.model, {"params": params}, images)
            return jax.nn.logsumexp(logits, axis=-1).mean() - logits.mean()

        compiled = jax.jit(jax.value_and_grad(loss)).lower(params, self.images).compile()
        return Program(compiled, (params, self.images))

    def norm_bytes(self) -> int:
        """Bytes of all activations that a GroupNorm normalises in one forward pass."""
        sizes: list[int] = []

        def count(call: Callable, arguments: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, GroupNorm):
                sizes.append(arguments[0].size * arguments[0].dtype.itemsize)
            return call(*arguments, **options)

        with nn.intercept_methods(count):
            jax.eval_shape(lambda variables: models.logits(self.model, variables, self.images), self.variables)
        return sum(sizes)


@dataclass(frozen=True)
class Program:
    """A compiled program and its arguments; a call waits for its end."""

    compiled: Any
    arguments: tuple

    def __call__(self) -> Any:
        """What it computes."""
        return jax.block_until_ready(self.compiled(*self.arguments))


def draw(name: str, dtype: str = "float32", batch: int = 0) -> Network:
    """A network of `SIZES`, with another batch if it is not 0."""
    classes, images, side, colours = SIZES[name]
    model, shape = models.create(name, classes, dtype), (side, side, colours)
    variables = models.init(model, jax.random.key(1), shape)
    head = variables["params"]["head"]  # of zeros, which would leave the gradient nothing to do
    head["kernel"] = jax.random.normal(jax.random.key(2), head["kernel"].shape)
    return Network(model, variables, jax.random.uniform(jax.random.key(0), (batch or images, *shape), minval=-1))


def _call(call: Callable, arguments: tuple, options: dict, _: nn.module.InterceptorContext) -> Any:
    return call(*arguments, **options)


def _skip(call: Callable, arguments: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
    return arguments[0] if isinstance(context.module, GroupNorm) else call(*arguments, **options)
