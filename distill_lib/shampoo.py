"""Shampoo: a gradient is preconditioned from both sides by inverse roots of its own second moments, block by block.

A block of at most 128 x 128 with gradient G keeps L, the moving average of G G^T, and R, that of G^T G, and moves along
L^(-1/4) G R^(-1/4), as far as Adam's second moment says (grafting). Gupta, Koren and Singer, ICML 2018, algorithm 1;
Anil et al., "Scalable second order optimization for deep learning", 2020; Beyer et al., CVPR 2022, appendix D.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Pair = tuple[jax.Array, jax.Array]
TINY = 1e-30  # stands for the size of what is zero: its square root and inverse are finite in float32


class ShampooState(NamedTuple):
    """What Shampoo remembers between steps."""

    step: jax.Array  #: steps done
    second: optax.Updates  #: moving average of the squared gradient, a tree like the parameters
    statistics: list[Pair]  #: L and R, (blocks, side, side), of each array that is a matrix


class Cut(NamedTuple):
    """How a matrix of `rows` x `columns` is cut into `down` x `across` equal blocks; zeros fill up the last ones."""

    rows: int
    columns: int
    down: int
    across: int

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return -(-self.rows // self.down), -(-self.columns // self.across)

    def blocks(self, array: jax.Array) -> jax.Array:
        """Cuts an array of rows x columns numbers into blocks (number, height, width)."""
        height, width = self.block
        rest = self.down * height - self.rows, self.across * width - self.columns
        matrix = jnp.pad(array.reshape(self.rows, self.columns), ((0, rest[0]), (0, rest[1])))
        tiled = matrix.reshape(self.down, height, self.across, width)
        return tiled.swapaxes(1, 2).reshape(self.down * self.across, height, width)

    def joined(self, blocks: jax.Array) -> jax.Array:
        """Puts blocks (number, height, width) together again: (rows, columns)."""
        height, width = self.block
        tiled = blocks.reshape(self.down, self.across, height, width).swapaxes(1, 2)
        return tiled.reshape(self.down * height, self.across * width)[: self.rows, : self.columns]


def row_axes(shape: tuple[int, ...]) -> int | None:
    """How many leading axes are the rows of an array that is seen as a matrix; None if it is rather a vector."""
    splits = range(3, 4) if len(shape) == 4 else range(1, len(shape))
    sides = {axes: (math.prod(shape[:axes]), math.prod(shape[axes:])) for axes in splits}
    matrices = [axes for axes in splits if min(sides[axes]) > 1]
    return min(matrices, key=lambda axes: sum(sides[axes]), default=None)


def cut(shape: tuple[int, ...], block_size: int) -> Cut | None:
    """How an array is cut into the fewest equal blocks of at most `block_size` squared; None if it is a vector."""
    axes = row_axes(shape)
    if axes is None:
        return None
    rows, columns = math.prod(shape[:axes]), math.prod(shape[axes:])
    return Cut(rows, columns, -(-rows // block_size), -(-columns // block_size))


def blocks(leaves: list[jax.Array], block_size: int) -> tuple[list[Cut | None], list[jax.Array], list[Pair | None]]:
    """How each array is cut, its blocks G, and G G^T and G^T G of these; what is no matrix stays, and has None."""
    cuts = [cut(leaf.shape, block_size) for leaf in leaves]
    parts = [how.blocks(leaf) if how else leaf for how, leaf in zip(cuts, leaves, strict=True)]
    return cuts, parts, [(g @ g.mT, g.mT @ g) if how else None for how, g in zip(cuts, parts, strict=True)]


def inverse_root(matrices: jax.Array, order: int = 4, epsilon: float = 1e-6) -> jax.Array:
    """Inverse root, of an order, of positive semi-definite float32 matrices (..., n, n), by Newton's iteration.

    Each matrix A gets a ridge first: A + epsilon s I, where s is its Schatten 8-norm, at most n^(1/8) times its largest
    eigenvalue, so that the number of iterations is known beforehand (Guo and Higham, "A Schur-Newton method for the
    matrix pth root and its inverse", 2006). Where the matrix is zero, a multiple of the identity.
    """
    identity = jnp.broadcast_to(jnp.eye(matrices.shape[-1]), matrices.shape)
    start = (1 + order) / 2  # between 0 and 1 + order every eigenvalue converges to 1
    growth = (1 + 1 / order) ** order  # of the smallest ones, in each iteration

    def closer(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        power, root = pair  # root^order A stays equal to power, which becomes the identity
        factor = ((1 + order) * identity - power) / order
        return jnp.linalg.matrix_power(factor, order) @ power, root @ factor

    with jax.default_matmul_precision("highest"):
        trace = jnp.maximum(jnp.trace(matrices, axis1=-2, axis2=-1), TINY)[..., None, None]
        fourth = jnp.linalg.matrix_power(matrices / trace, 4)
        size = trace * jnp.maximum(jnp.square(fourth).sum(axis=(-2, -1), keepdims=True), TINY) ** (1 / 8)
        first = start * (matrices / size + epsilon * identity), start ** (1 / order) * identity
        iterations = math.ceil(math.log(1 / epsilon, growth)) + 5
        _, root = jax.lax.fori_loop(0, iterations, closer, first)
    return root * size ** (-1 / order)


def scale_by_shampoo(
    *,
    block_size: int = 128,
    momentum: float = 0.9,
    decay: float = 0.999,
    epsilon: float = 1e-6,
    start: int = 10,
    mesh: Mesh | None = None,
) -> optax.GradientTransformation:
    """Preconditions gradients by Shampoo; each array's step is as long as Adam's would be, then averaged over steps.

    Second moments, in blocks of at most `block_size`, are averaged with `decay` and get a ridge of `epsilon` times
    their largest eigenvalue. Momentum is Nesterov's. The first `start` steps are the grafted ones. Devices of a mesh,
    along one axis "data", share the roots. Learning rate and sign are left to the chain.
    """
    find = _shared_roots(functools.partial(inverse_root, epsilon=epsilon), mesh)

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        return decay * old + (1 - decay) * new

    def init(params: optax.Params) -> ShampooState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        _, _, products = blocks(jax.tree.leaves(zeros), block_size)
        return ShampooState(jnp.zeros((), jnp.int32), zeros, [pair for pair in products if pair])

    def update(
        gradients: optax.Updates, state: ShampooState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ShampooState]:
        second = jax.tree.map(lambda old, new: average(old, new**2), state.second, gradients)
        unbias = 1 - decay ** (state.step + 1)
        grafts = jax.tree.map(lambda leaf, square: leaf / (jnp.sqrt(square / unbias) + 1e-8), gradients, second)
        steps, structure = jax.tree.flatten(grafts)
        with jax.default_matmul_precision("highest"):
            cuts, parts, products = blocks(jax.tree.leaves(gradients), block_size)
            statistics = jax.tree.map(average, state.statistics, [pair for pair in products if pair])
            matrices = ((number, how) for number, how in enumerate(cuts) if how)
            for (number, how), (left, right) in zip(matrices, _all_at_once(find, statistics), strict=True):
                graft = steps[number]
                direction = how.joined(left @ parts[number] @ right).reshape(graft.shape)
                length = jnp.linalg.norm(graft.ravel()) / jnp.maximum(jnp.linalg.norm(direction.ravel()), TINY)
                steps[number] = jnp.where(state.step < start, graft, direction * length)
        return jax.tree.unflatten(structure, steps), ShampooState(state.step + 1, second, statistics)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.trace(momentum, nesterov=True), optax.scale(1 - momentum)
    )


def _shared_roots(find: Callable[[jax.Array], jax.Array], mesh: Mesh | None) -> Callable[[jax.Array], jax.Array]:
    """Roots of a stack of matrices, of which each device computes as many; zeros fill them up to a multiple."""
    if mesh is None or mesh.size == 1:
        return find
    split, everywhere = PartitionSpec("data"), NamedSharding(mesh, PartitionSpec())
    # nothing passes between devices, so there is nothing to check
    each = jax.shard_map(find, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)

    def roots(stack: jax.Array) -> jax.Array:
        stack = jax.lax.with_sharding_constraint(stack, everywhere)  # or the state would come back in shares
        filled = jnp.pad(stack, ((0, -len(stack) % mesh.size), (0, 0), (0, 0)))
        return jax.lax.with_sharding_constraint(each(filled), everywhere)[: len(stack)]

    return roots


def _all_at_once(find: Callable[[jax.Array], jax.Array], statistics: list[Pair]) -> list[Pair]:
    stacks, structure = jax.tree.flatten(statistics)
    roots = list(stacks)
    for size in {stack.shape[-1]: None for stack in stacks}:
        numbers = [number for number, stack in enumerate(stacks) if stack.shape[-1] == size]
        ends = list(itertools.accumulate(len(stacks[number]) for number in numbers))[:-1]
        parts = jnp.split(find(jnp.concatenate([stacks[number] for number in numbers])), ends)
        for number, part in zip(numbers, parts, strict=True):
            roots[number] = part
    return jax.tree.unflatten(structure, roots)
