"""What a network costs: multiply-accumulates of one inference, and parameters; both by tracing, nothing is computed."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from distill_lib import models
from distill_lib.errors import DistillError


def macs(model: nn.Module, image_shape: models.ImageShape) -> int:
    """Counts the multiply-accumulates (two operations each) of convolutions and matrix products for one image.

    Products with padded zeros count; normalisation and the like do not. DistillError for a loop of unknown length.
    """
    return _traced(model, image_shape)[0]


def parameters(model: nn.Module, image_shape: models.ImageShape) -> int:
    """Counts the numbers that are trained; running statistics of BatchNorm are not among them."""
    return _traced(model, image_shape)[1]


@functools.lru_cache(maxsize=64)  # tracing a network of 152 layers takes seconds
def _traced(model: nn.Module, image_shape: models.ImageShape) -> tuple[int, int]:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    trace = jax.make_jaxpr(model.init_with_output, return_shape=True)  # drawing weights multiplies no matrices
    program, (_, variables) = trace(jax.random.key(0), image)
    return _count(program.jaxpr), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _count(jaxpr: Jaxpr) -> int:
    return sum(map(_equation, jaxpr.eqns))


def _equation(equation: Any) -> int:
    kind, params = equation.primitive.name, equation.params
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
    inner = [_count(jaxpr) for jaxpr in _programs(params.values())]
    if kind == "while" and any(inner):
        raise DistillError("a loop of unknown length holds matrix products; write it as a scan to count them.")
    if kind == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if kind == "scan" else 1)


def _programs(values: Any) -> Iterator[Jaxpr]:
    for value in values:
        if isinstance(value, ClosedJaxpr | Jaxpr):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value
        elif isinstance(value, tuple | list):
            yield from _programs(value)
