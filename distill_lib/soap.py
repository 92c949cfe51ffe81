"""SOAP: Adam in the eigenbases of Shampoo's second moments, block by block (Vyas et al., ICLR 2025, algorithm 3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from distill_lib.shampoo import Pair, blocks


class SoapState(NamedTuple):
    """What SOAP remembers between steps, in lists over the arrays, of which matrices are cut into blocks."""

    step: jax.Array  #: steps done
    mean: list[jax.Array]  #: moving average of the gradient
    second: list[jax.Array]  #: that of its square, in the bases
    statistics: list[Pair | None]  #: those of Shampoo; None for what is no matrix
    bases: list[Pair | None]  #: their eigenvectors, as columns, after the last renewal


def scale_by_soap(
    *, block_size: int = 128, momentum: float = 0.9, decay: float = 0.999, every: int = 10
) -> optax.GradientTransformation:
    """Adam's steps in bases where gradients are nearly uncorrelated; what is no matrix moves by plain Adam.

    The first moment is averaged with `momentum`, second ones with `decay`; matrices are cut as by
    `shampoo.scale_by_shampoo`. After the first step, which is Adam's, and after `every` more the bases are renewed, by
    eigenvectors instead of a power iteration.
    """

    def average(old: jax.Array, new: jax.Array, share: float = decay) -> jax.Array:
        return share * old + (1 - share) * new

    def init(params: optax.Params) -> SoapState:
        _, zeros, statistics = blocks(jax.tree.leaves(jax.tree.map(jnp.zeros_like, params)), block_size)
        bases = jax.tree.map(lambda moments: jnp.broadcast_to(jnp.eye(moments.shape[-1]), moments.shape), statistics)
        return SoapState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, zeros), zeros, statistics, bases)

    @jax.default_matmul_precision("highest")
    def update(
        gradients: optax.Updates, state: SoapState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SoapState]:
        leaves, structure = jax.tree.flatten(gradients)
        cuts, given, products = blocks(leaves, block_size)
        statistics, count = jax.tree.map(average, state.statistics, products), state.step + 1
        mean = [average(old, new, momentum) for old, new in zip(state.mean, given, strict=True)]
        turned, back = _turned(given, state.bases), jax.tree.map(jnp.matrix_transpose, state.bases)
        second = [average(old, new**2) for old, new in zip(state.second, turned, strict=True)]
        unbias = jnp.sqrt(1 - decay**count) / (1 - momentum**count)
        pairs = zip(_turned(mean, state.bases), second, strict=True)
        steps = _turned([unbias * first / (jnp.sqrt(square) + 1e-8) for first, square in pairs], back)
        renewed, kept = lambda: jax.tree.map(_eigenvectors, statistics), lambda: state.bases
        bases = jax.lax.cond(state.step % every == 0, renewed, kept)
        joined = [how.joined(step) if how else step for how, step in zip(cuts, steps, strict=True)]
        shaped = [step.reshape(leaf.shape) for step, leaf in zip(joined, leaves, strict=True)]
        return jax.tree.unflatten(structure, shaped), SoapState(count, mean, second, statistics, bases)

    return optax.GradientTransformation(init, update)


def _eigenvectors(moments: jax.Array) -> jax.Array:
    """Of each matrix (blocks, n, n), as columns, one after another.

    In JAX before 0.11.2 `eigh` of several matrices hands them to the threads of the CPU that its program runs on, and
    waits there: with as many such calls at once as there are threads, none is left to do the work, and all wait.
    """
    return jax.lax.map(lambda each: jnp.linalg.eigh(each)[1], moments)


def _turned(arrays: list[jax.Array], bases: list[Pair | None]) -> list[jax.Array]:
    """Matrices in the bases of their rows and columns; what has none stays as it is."""
    pairs = zip(arrays, bases, strict=True)
    return [array if basis is None else basis[0].mT @ array @ basis[1] for array, basis in pairs]
