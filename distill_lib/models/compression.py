"""Networks in fewer bits: kernels as they are used, rounded or pruned, and what layers are given, rounded.

Numbers become those that so many bits can hold; the arithmetic stays that of float32. The gradient passes as if nothing
had been changed, so that a student can be trained in the form that it will be used in.

References:
    Jacob et al., "Quantization and training of neural networks for efficient inference", CVPR 2018, sections 2.1 and 3.
    Bengio et al., "Estimating or propagating gradients through stochastic neurons", arXiv 1308.3432 (straight-through).
    Mishra et al., "Accelerating sparse deep neural networks", arXiv 2104.08378, section 2 (2:4).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib.models import Variables

FULL = 32  # bits of a number that stays as it is, and of every scale


class Form(NamedTuple):
    """What becomes of a network's kernels (..., outputs), and of what the layers that have one are given."""

    words: str  #: its name in tables
    kernel: Callable[[jax.Array], jax.Array] | None = None  #: None leaves them as they are
    bits: int = FULL  #: that a weight takes, with a bit each to say which of them are there
    scales: bool = False  #: whether every output has a scale, too
    activations: int | None = None  #: bits of activations, with a scale for each image; None leaves them as they are


def rounded(values: jax.Array, bits: int, over: Sequence[int]) -> jax.Array:
    """Rounds to `2**bits - 1` levels, from -max to max of the values along the axes `over`."""
    scale = jnp.abs(values).max(over, keepdims=True) / (2 ** (bits - 1) - 1)
    few: jax.Array = jnp.round(values / jnp.where(scale > 0, scale, 1)) * scale
    return few


def pruned(kernel: jax.Array, share: float) -> jax.Array:
    """Puts a share of the weights to 0, those nearest to it."""
    size = jnp.abs(kernel)
    return jnp.where(size < jnp.sort(size, axis=None)[round(share * kernel.size)], 0, kernel)


def two_of_four(kernel: jax.Array) -> jax.Array:
    """Keeps the two largest of every four weights of an output, in the order of (height, width, inputs)."""
    rows = kernel.reshape(-1, kernel.shape[-1])
    fours = jnp.pad(rows, ((0, -len(rows) % 4), (0, 0))).reshape(-1, 4, rows.shape[1])
    places = jnp.argsort(jnp.argsort(-jnp.abs(fours), axis=1), axis=1)  # of the largest 0; of equal ones the first
    return jnp.where(places < 2, fours, 0).reshape(-1, rows.shape[1])[: len(rows)].reshape(kernel.shape)


def _by_output(kernel: jax.Array, bits: int) -> jax.Array:
    return rounded(kernel, bits, range(kernel.ndim - 1))


FORMS = {"none": Form("float32")}
FORMS |= {
    f"int{bits}": Form(f"{bits} bits", functools.partial(_by_output, bits=bits), bits, True) for bits in range(8, 1, -1)
}
FORMS |= {
    f"w{bits}a{bits}": FORMS[f"int{bits}"]._replace(words=f"{bits} bits, activations too", activations=bits)
    for bits in (8, 6, 4)
}
FORMS |= {
    f"pruned{percent}": Form(f"{percent} % pruned", functools.partial(pruned, share=percent / 100), bits + 1)
    for percent, bits in ((50, 16), (75, 8))
}
FORMS["2:4"] = Form("2:4", two_of_four, 17)
"""What a recipe's `compression` can be: of weights, in the bits of a number; or zeros in their place."""


def frozen(model: Any, variables: Variables, form: str = "none") -> tuple[Any, Variables]:
    """The network as it is used, folded and in a form, and its variables, through which gradients reach those given.

    BiT's kernels are standardised before they are rounded or pruned, and BatchNorm is moved into those of mobile
    networks: so its running statistics stay where they are while such a student is trained.
    """
    network, folded = model.fold(variables)
    return compressed(network, folded, form)


def compressed(network: Any, variables: Variables, form: str) -> tuple[Any, Variables]:
    """A network that is folded already, in a form; biases, and scales of normalisation, stay."""
    own = FORMS[form]
    if change := own.kernel:
        variables = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _through(change, leaf) if _is_kernel(path) else leaf, variables
        )
    return (network if own.activations is None else _Rounding(network, own.activations)), variables


def size(variables: Variables, form: str = "none") -> int:
    """Bytes of a network's numbers in a form."""
    own, total = FORMS[form], 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        scales = FULL * leaf.shape[-1] if own.scales else 0
        total += own.bits * leaf.size + scales if _is_kernel(path) else FULL * leaf.size
    return -(-total // 8)


@dataclass(frozen=True)
class _Rounding:
    """A network whose layers with a kernel are given activations in few bits."""

    network: nn.Module
    bits: int

    def apply(self, variables: Variables, images: jax.Array, **options: Any) -> Any:
        def layer(call: Callable[..., Any], arguments: Any, own: Any, context: nn.module.InterceptorContext) -> Any:
            if context.method_name == "__call__" and context.module.has_variable("params", "kernel"):
                given, *rest = arguments
                few = functools.partial(rounded, bits=self.bits, over=range(1, given.ndim))
                arguments = _through(few, given), *rest
            return call(*arguments, **own)

        with nn.intercept_methods(layer):
            return self.network.apply(variables, images, **options)


def _through(change: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """Exactly what a change makes of values, with the gradient of no change."""
    values = jnp.asarray(values)
    changed = jax.lax.stop_gradient(change(values.astype(jnp.float32)).astype(values.dtype))
    return changed + (values - jax.lax.stop_gradient(values))


def _is_kernel(path: tuple[jax.tree_util.DictKey, ...]) -> bool:
    return bool(path[-1].key == "kernel")
