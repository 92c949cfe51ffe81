"""Cost: multiply-accumulates and parameters, counted by hand for small networks and published for the book's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from distill_lib import models
from distill_lib.errors import DistillError
from distill_lib.models import flops
from distill_lib.models.layers import GroupNorm


class Convolutions(nn.Module):
    """Every kind of convolution and a dense layer, and beside them what must not count."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, colours) to logits (batch, 3)."""
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="strided")(images))
        x = nn.Conv(6, (5, 5), feature_group_count=6, use_bias=False, name="depthwise")(x)
        x = nn.Conv(4, (3, 1), kernel_dilation=2, padding="VALID", name="dilated")(GroupNorm(2)(x))
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Normalised(nn.Module):
    """Running statistics beside parameters."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, colours) to logits (batch, 2)."""
        return nn.Dense(2)(nn.BatchNorm(use_running_average=True)(images).mean(axis=(1, 2)))


class Wrapped(nn.Module):
    """A product of (batch, 5) and (5, 5), done by a function of both."""

    function: Callable[[jax.Array, jax.Array], jax.Array]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, 1, 1, 5) to logits (batch, 5)."""
        return self.function(images[:, 0, 0], self.param("kernel", nn.initializers.ones, (5, 5)))


@jax.custom_vjp
def _own_gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


_own_gradient.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


def _four_times(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda x, _: (jax.jit(jnp.matmul)(x, kernel), None), x, length=4)[0]


def _either(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.cond(x.sum() > 0, lambda x: x @ kernel @ kernel, lambda x: x, x)


def _until(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ kernel, x)


def test_convolutions_are_counted_as_by_hand() -> None:
    """Places x outputs x kernel x inputs of a group; padding counts, biases, norms and pooling do not."""
    strided, depthwise = (6 * 5 * 6) * (3 * 3 * 4), (6 * 5 * 6) * (5 * 5)
    dilated, head = (2 * 5 * 4) * (3 * 6), 3 * 4
    assert flops.macs(Convolutions(), (12, 10, 4)) == strided + depthwise + dilated + head


def test_parameters_are_counted_as_by_hand() -> None:
    """Kernels, biases and scales; not the running statistics, which are not trained."""
    by_hand = (3 * 3 * 4 * 6 + 6) + 5 * 5 * 6 + 2 * 6 + (3 * 6 * 4 + 4) + (4 * 3 + 3)
    assert flops.parameters(Convolutions(), (12, 10, 4)) == by_hand
    assert flops.parameters(Normalised(), (4, 4, 3)) == 2 * 3 + (3 * 2 + 2)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jax.jit(jnp.matmul), 1),
        (jax.checkpoint(jnp.matmul), 1),
        (_own_gradient, 1),
        (_four_times, 4),
        (_either, 2),
        (jax.vmap(jnp.matmul, in_axes=(0, None)), 1),
        (lambda x, kernel: jnp.einsum("bi,ij->bj", x, kernel), 1),
    ],
)
def test_products_inside_other_programs_are_seen(function: Callable, products: int) -> None:
    """Compiled, checkpointed, looped and branching parts count as often as they run, a branch as its dearest arm."""
    assert flops.macs(Wrapped(function), (1, 1, 5)) == products * 25


def test_a_loop_of_unknown_length_is_refused() -> None:
    """No number is better than one that is right for a single round."""
    with pytest.raises(DistillError, match="loop of unknown length"):
        flops.macs(Wrapped(_until), (1, 1, 5))


def test_the_batch_and_the_dtype_do_not_matter() -> None:
    """The cost is that of one image, however it is computed."""
    single, half = (flops.macs(models.create("bit_r11w8", 10, dtype), (28, 28, 1)) for dtype in models.DTYPES)
    assert single == half > 0


def normalised(model: nn.Module, variables: dict, side: int) -> int:
    """How many numbers the normalisation layers of a network give for one image."""

    def outputs(variables: dict, images: jax.Array) -> Any:
        return model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: isinstance(module, GroupNorm | nn.LayerNorm),
            mutable=["intermediates"],
        )[1]

    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(outputs, variables, image))
    return sum(leaf.size for leaf in leaves)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gmacs", "published"),
    [
        ("bit_r50x1", 4.09, 4.23),
        ("bit_r152x2", 45.81, 46.95),
        ("vit_ti16", 1.25, 1.26),
        ("vit_b16", 17.56, 17.58),
    ],
)
def test_published_figures(name: str, gmacs: float, published: float) -> None:
    """timm's figures at 224 pixels, which count 5 for a normalised number and 4 for a standardised weight besides.

    Source: results/benchmark-infer-amp-nchw-pt113-cu117-rtx3090.csv of huggingface/pytorch-image-models.
    """
    model = models.create(name, 1000)
    found = flops.macs(model, (224, 224, 3))
    assert round(found / 1e9, 2) == gmacs
    variables = models.shapes(model, (224, 224, 3))
    kernels = [leaf.size for leaf in jax.tree.leaves(variables) if leaf.ndim == 4 and leaf.shape[:3] != (1, 1, 1)]
    standardised = sum(kernels) if name.startswith("bit") else 0
    assert round((found + 5 * normalised(model, variables, 224) + 4 * standardised) / 1e9, 2) == published


def kept_bytes(model: nn.Module, image_shape: tuple[int, int, int], batch_size: int, *, remat: bool = False) -> int:
    """Counts the memory of what a forward pass keeps for the gradient, parameters that it needs again included."""

    def kept(variables: models.Variables, images: jax.Array) -> Any:
        def forward(params: dict[str, Any]) -> tuple[jax.Array, models.Variables]:
            return models.train_logits(model, variables | {"params": params}, images, remat=remat)

        return jax.vjp(forward, variables["params"], has_aux=True)[1]

    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(kept, models.shapes(model, image_shape), images))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def test_rematerialisation_keeps_little_more_than_the_outputs_of_units() -> None:
    """For the gradient of a batch: these, parameters and images at least, and at most half of what is kept without."""
    model, shape = models.create("bit_r11w8", 10), (28, 28, 1)
    kept, again = (kept_bytes(model, shape, 64, remat=remat) for remat in (False, True))
    numbers = 14 * 14 * 32 + 7 * 7 * 64 + 4 * 4 * 128  # outputs of the three units
    least = 4 * (64 * (numbers + 28 * 28) + flops.parameters(model, shape))
    assert 0.9 * least < again < kept / 2  # biases are parameters that no gradient needs
