"""Models by name; each family lives in a file of its own.

A model is a Flax module and its variables a nested dict, `{"params": ...}` and with BatchNorm `{"batch_stats": ...}`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib.errors import DistillError, unknown
from distill_lib.models import bit, mobilenets, vit
from distill_lib.models.layers import UNIT

DTYPES = ("float32", "bfloat16")
MOST_PIXELS = 2048  # height and width of an image that any network is shown; several times what they are made for
FAMILIES = (bit, mobilenets, vit)

Variables = dict[str, dict[str, Any]]
ImageShape = tuple[int, int, int]  # height, width, channels


def create(name: str, num_classes: int, dtype: str = "float32") -> nn.Module:
    """Builds one of `names`, a Flax module with so many logits and activations in the dtype; or raises DistillError."""
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    for family in FAMILIES:
        if build := family.builders().get(name):
            return build(num_classes=num_classes, dtype=dtype)
    raise unknown("model", name, names())


def names() -> list[str]:
    """Names of the models that `create` builds."""
    return [name for family in FAMILIES for name in family.builders()]


def check_resolution(name: str, resolution: int) -> None:
    """Raises DistillError if a model is unknown, or cannot take images of that height and width; nothing is traced."""
    patch = getattr(create(name, 1), "patch", 1)
    if resolution > MOST_PIXELS:
        raise DistillError(f"{name} is to be shown {resolution} pixels; at most {MOST_PIXELS} are.")
    if resolution % patch:
        raise DistillError(
            f"{name} takes images of whole patches: choose a resolution that {patch} divides, got {resolution}."
        )


def init(model: nn.Module, key: jax.Array, image_shape: ImageShape) -> Variables:
    """Draws the variables of a model for images of shape (height, width, channels)."""
    return _initialiser(model, image_shape)(key)


@functools.lru_cache(maxsize=64)
def _initialiser(model: nn.Module, image_shape: ImageShape) -> Callable[[jax.Array], Variables]:
    # XLA:CPU takes five times as long to optimise a few thousand random draws as they take without.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape))), compiler_options=options)


@functools.lru_cache(maxsize=64)
def shapes(model: nn.Module, image_shape: ImageShape) -> Variables:
    """Shapes of a model's variables for images of shape (height, width, channels), or DistillError if it takes none."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))


def logits(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """Predicts: images (batch, height, width, channels), float32 in [-1, 1], to logits (batch, num_classes) float32."""
    output: Any = model.apply(variables, images)
    return output


def train_logits(
    model: nn.Module, variables: Variables, images: jax.Array, *, remat: bool = False
) -> tuple[jax.Array, Variables]:
    """As `logits`, with BatchNorm's statistics of the batch, over all devices; and {"batch_stats": ...}, or nothing.

    With `remat` only the outputs of residual units are kept for the gradient, and the rest is computed again then.
    """

    def forward(variables: Variables, images: jax.Array) -> tuple[jax.Array, Variables]:
        output, changed = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return output, dict(changed)

    if remat:
        forward = jax.checkpoint(forward, policy=jax.checkpoint_policies.save_only_these_names(UNIT))
    return forward(variables, images)


def penultimate(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """What a model's last layer, which is called "head", is given: pooled features (batch, features), float32."""
    seen: list[jax.Array] = []

    def keep(call: Callable[..., Any], arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path == ("head",) and context.method_name == "__call__":
            seen.append(arguments[0])
        return call(*arguments, **options)

    with nn.intercept_methods(keep):
        model.apply(variables, images)
    if not seen:
        raise DistillError(f"{type(model).__name__} has no layer `head`, so that its features are not known.")
    return seen[0].astype("float32")
