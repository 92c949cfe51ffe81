"""What a network costs: multiply-accumulates of one inference, and parameters; both by tracing, nothing is computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill_lib import models
from distill_lib.errors import DistillError

if TYPE_CHECKING:
    import flax.linen as nn


@functools.lru_cache(maxsize=64)  # tracing a network of 152 layers takes seconds
def macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Counts the multiply-accumulates of convolutions and matrix products in one inference of one image.

    Products with padded zeros count; biases, normalisation, activations and pooling do not. timm's published figures
    (by fvcore) are some percent larger for these networks: they add 5 for each number that GroupNorm or LayerNorm
    normalises, 2 for BatchNorm, and 4 for each weight that is standardised.

    Args:
        model: any Flax module from images to logits.
        image_shape: (height, width, channels).

    Returns:
        The number; one multiply-accumulate is two floating-point operations.

    Raises:
        DistillError: if the network holds a loop whose length is not known in advance.
    """
    import jax
    import jax.numpy as jnp

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = jax.make_jaxpr(model.init_with_output)(jax.random.key(0), image)  # drawing weights multiplies no matrices
    return _count(traced.jaxpr)


def parameters(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Counts the numbers that are trained; running statistics of BatchNorm are not among them.

    Args:
        model: any Flax module from images to logits.
        image_shape: (height, width, channels).
    """
    import jax

    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(models.shapes(model, image_shape)["params"]))


def kept_bytes(model: nn.Module, image_shape: tuple[int, int, int], batch_size: int, *, remat: bool = False) -> int:
    """Counts the memory of what a forward pass keeps for the gradient, parameters that it needs again included.

    Args:
        model: the module.
        image_shape: (height, width, channels).
        batch_size: images at once.
        remat: as in `models.train_logits`.
    """
    import jax
    import jax.numpy as jnp

    def kept(variables: models.Variables, images: jax.Array) -> Any:
        rest = {name: tree for name, tree in variables.items() if name != "params"}

        def forward(params: dict) -> tuple[jax.Array, models.Variables]:
            return models.train_logits(model, {"params": params} | rest, images, remat=remat)

        return jax.vjp(forward, variables["params"], has_aux=True)[1]

    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(kept, models.shapes(model, image_shape), images))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _count(jaxpr: Any) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    """Multiply-accumulates of one operation, and of the programs inside it."""
    kind = equation.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    inner = [_count(jaxpr) for jaxpr in _programs(equation.params.values())]
    if kind == "while" and any(inner):
        raise DistillError("a loop of unknown length holds matrix products; write it as a scan to count them.")
    if kind == "cond":
        return max(inner)
    return sum(inner) * (equation.params["length"] if kind == "scan" else 1)


def _programs(values: Any) -> Iterator[Any]:
    """The programs (open or closed) among an operation's parameters."""
    from jax.extend import core

    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
