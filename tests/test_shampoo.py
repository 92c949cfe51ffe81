"""Shampoo against a NumPy reference that walks over the blocks, and against what must not change its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from distill_lib import shampoo, soap

DECAY, MOMENTUM = 0.9, 0.8
RIDGE = 1e-4  # of whole steps: large beside what float32 rounds, as statistics of few steps are singular
SHAPES = {  # with blocks of at most 4 x 4
    "whole": (3, 4),
    "cut unevenly": (5, 7),
    "convolution": (2, 2, 3, 4),
    "attention": (6, 2, 3),
    "vector": (5,),
    "scale": (1, 1, 1, 6),
    "scalar": (),
}
MATRICES = {"whole": (3, 4), "cut unevenly": (5, 7), "convolution": (12, 4), "attention": (6, 6)}


def make_gradients(steps: int, shapes: dict[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> list[dict]:
    """A gradient tree for every step."""
    numbers = np.random.default_rng(seed)
    return [
        {name: numbers.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(steps)
    ]


def plain_root(matrix: np.ndarray, order: int = 4, epsilon: float = 1e-6) -> np.ndarray:
    """The inverse root by eigenvalues, in float64; the ridge is relative to the Schatten 8-norm."""
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    values = np.maximum(values, 0)
    return (vectors * (values + epsilon * (values**8).sum() ** (1 / 8)) ** (-1 / order)) @ vectors.T


def plain_blocks(rows: int, columns: int) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Blocks of at most 4 x 4, as equal as can be; the last ones may be smaller."""
    height, width = (-(-side // -(-side // 4)) for side in (rows, columns))
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield (top, left), (slice(top, top + height), slice(left, left + width))


def plain_steps(gradients: list[dict], start: int) -> list[dict]:
    """Every step by Shampoo, one array and one block after the other."""
    history: list[dict] = [{} for _ in gradients]
    for name, shape in SHAPES.items():
        second, average = np.zeros(shape), np.zeros(shape)
        left, right = {}, {}
        for step, gradient in enumerate(tree[name].astype(np.float64) for tree in gradients):
            second = DECAY * second + (1 - DECAY) * gradient**2
            graft = gradient / (np.sqrt(second / (1 - DECAY ** (step + 1))) + 1e-8)
            direction = graft
            if name in MATRICES:
                matrix = gradient.reshape(MATRICES[name])
                turned = np.zeros_like(matrix)
                for place, where in plain_blocks(*MATRICES[name]):
                    block = matrix[where]
                    left[place] = DECAY * left.get(place, 0) + (1 - DECAY) * block @ block.T
                    right[place] = DECAY * right.get(place, 0) + (1 - DECAY) * block.T @ block
                    turned[where] = plain_root(left[place], 4, RIDGE) @ block @ plain_root(right[place], 4, RIDGE)
                if step >= start:
                    direction = (turned * np.linalg.norm(graft) / np.linalg.norm(turned)).reshape(shape)
            average = MOMENTUM * average + (1 - MOMENTUM) * direction
            history[step][name] = MOMENTUM * average + (1 - MOMENTUM) * direction
    return history


@pytest.mark.parametrize("start", [0, 3])
def test_steps_equal_those_of_the_reference(start: int) -> None:
    """Statistics, roots, grafting, momentum and start, for arrays below and above the size of a block."""
    gradients = make_gradients(7)
    transform = shampoo.scale_by_shampoo(block_size=4, decay=DECAY, momentum=MOMENTUM, epsilon=RIDGE, start=start)
    update, state = jax.jit(transform.update), transform.init(gradients[0])
    for step, expected in enumerate(plain_steps(gradients, start)):
        updates, state = update(gradients[step], state)
        for name in SHAPES:
            np.testing.assert_allclose(
                updates[name], expected[name], rtol=2e-3, atol=2e-4, err_msg=f"{name}, step {step}"
            )


inverse_root = jax.jit(shampoo.inverse_root, static_argnums=1)


@given(
    side=st.sampled_from([1, 5, 24]),
    order=st.sampled_from([2, 4]),
    digits=st.floats(0, 8),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e10]),
    seed=st.integers(0, 999),
)
def test_inverse_root_equals_that_by_eigenvalues(side: int, order: int, digits: float, scale: float, seed: int) -> None:
    """Any spread of eigenvalues (singular to float32 too) at any scale."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(side, side)))
    matrix = scale * (vectors * np.logspace(0, -digits, side)) @ vectors.T
    matrix = ((matrix + matrix.T) / 2).astype(np.float32)
    found, expected = inverse_root(matrix, order), plain_root(matrix, order)
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


def test_inverse_root_takes_many_matrices_at_once_and_zeros() -> None:
    """A stack's roots are those of its matrices; what was never seen has a finite root."""
    wide = np.random.default_rng(0).normal(size=(3, 9, 20)).astype(np.float32)
    stack = wide @ wide.swapaxes(1, 2)
    stack[1] = 0
    roots = inverse_root(stack, 4)
    for index in (0, 2):
        np.testing.assert_allclose(roots[index], plain_root(stack[index]), rtol=1e-3, atol=1e-5)
    assert np.isfinite(roots[1]).all()
    np.testing.assert_array_equal(roots[1], roots[1, 0, 0] * np.eye(9, dtype=np.float32))


def directions(gradients: list[np.ndarray]) -> list[np.ndarray]:
    """Steps without momentum, each made as long as 1."""
    transform = shampoo.scale_by_shampoo(momentum=0.0, start=0)
    update, state, found = jax.jit(transform.update), transform.init(gradients[0]), []
    for gradient in gradients:
        step, state = update(gradient, state)
        found.append(step / np.linalg.norm(step))
    return found


def test_a_rotation_of_rows_and_columns_rotates_the_direction() -> None:
    """What diagonal methods lack: the choice of a basis does not matter."""
    numbers = np.random.default_rng(0)
    gradients = [numbers.normal(size=(6, 4)).astype(np.float32) for _ in range(5)]
    rows, columns = (np.linalg.qr(numbers.normal(size=(side, side)))[0].astype(np.float32) for side in (6, 4))
    rotated = directions([rows @ gradient @ columns for gradient in gradients])
    for one, other in zip(directions(gradients), rotated, strict=True):
        np.testing.assert_allclose(rows @ one @ columns, other, atol=2e-3)
        assert np.abs(one - other).max() > 0.1


def test_steps_do_not_depend_on_the_scale_of_the_loss() -> None:
    """A loss that is a thousand times as large gives the same steps, and so does one that is tiny."""
    gradients = make_gradients(4, {"kernel": (6, 4)})
    plain, large, tiny = (
        directions([scale * tree["kernel"] for tree in gradients]) for scale in (np.float32(1), 1e3, 1e-8)
    )
    np.testing.assert_allclose(large, plain, atol=1e-3)
    np.testing.assert_allclose(tiny, plain, atol=1e-3)


def test_an_array_moves_as_far_as_by_adam() -> None:
    """Grafting, against optax: norms are those of Adam without momentum; what is no matrix takes its very step."""
    ours = shampoo.scale_by_shampoo(block_size=4, momentum=0.0, start=0)
    adam = optax.scale_by_adam(b1=0.0, b2=0.999)
    gradients = make_gradients(4)
    states = [one.init(gradients[0]) for one in (ours, adam)]
    moves = [jax.jit(one.update) for one in (ours, adam)]
    for tree in gradients:
        (updates, states[0]), (expected, states[1]) = (
            move(tree, state) for move, state in zip(moves, states, strict=True)
        )
        for name in SHAPES:
            np.testing.assert_allclose(np.linalg.norm(updates[name]), np.linalg.norm(expected[name]), rtol=1e-4)
            assert name in MATRICES or np.allclose(updates[name], expected[name], rtol=1e-4)
            assert name not in MATRICES or not np.allclose(updates[name], expected[name], rtol=1e-2)


def test_what_has_no_gradient_stands_still() -> None:
    """Behind a head of zeros nothing has a gradient in the first step: no step, and nothing that is not finite."""
    zeros = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    transform = shampoo.scale_by_shampoo(block_size=4, start=0)
    state = transform.init(zeros)
    update = jax.jit(transform.update)
    for _ in range(2):
        updates, state = update(zeros, state)
    jax.tree.map(np.testing.assert_array_equal, updates, zeros)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def counted(state: shampoo.ShampooState) -> Counter[int]:
    """Matrices of each size."""
    sizes: Counter[int] = Counter()
    for stack in jax.tree.leaves(state.statistics):
        sizes[stack.shape[-1]] += len(stack)
    return sizes


@pytest.mark.slow
def test_devices_share_the_roots() -> None:
    """Steps of two devices are those of one, also where the matrices do not come out even; the state stays whole."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    gradients, everywhere = make_gradients(4), NamedSharding(mesh, PartitionSpec())
    alone, shared = (shampoo.scale_by_shampoo(block_size=4, start=1, mesh=one) for one in (None, mesh))
    state = alone.init(gradients[0])
    assert any(count % 2 for count in counted(state[0]).values())  # or filling up was not tried
    whole = jax.device_put(shared.init(gradients[0]), everywhere)
    update, update_shared = (jax.jit(one.update, donate_argnums=1) for one in (alone, shared))
    for tree in gradients:
        expected, state = update(tree, state)
        updates, whole = update_shared(jax.device_put(tree, everywhere), whole)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4), updates, expected)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(whole))


def test_blocks_of_128_are_the_default() -> None:
    """The paper's blocks; a dimension above is cut into equal parts, one below is kept whole."""
    shapes = {"large": (1, 1, 256, 512), "uneven": (130, 3), "small": (3, 3, 8, 16)}
    (state, *_) = jax.eval_shape(
        shampoo.scale_by_shampoo().init,
        {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()},
    )
    # 2 x 4 blocks with two sides each; 2 blocks of 65 x 3; one of 72 x 16
    assert counted(state) == {128: 16, 65: 2, 3: 2, 72: 1, 16: 1}


def least_squares(scale: optax.GradientTransformation, rates: tuple[float, ...], steps: int) -> dict[float, float]:
    """Loss by learning rate after so many steps on features that are ill-conditioned, along no axis."""
    numbers = np.random.default_rng(0)
    mixed = np.linalg.qr(numbers.normal(size=(16, 16)))[0]
    inputs = jnp.asarray(numbers.normal(size=(256, 16)) * np.logspace(0, -2, 16) @ mixed, jnp.float32)
    answers = inputs @ jnp.asarray(mixed.T @ numbers.normal(size=(16, 8)), jnp.float32)

    def loss(weights: jax.Array) -> jax.Array:
        return jnp.square(inputs @ weights - answers).mean()

    @jax.jit
    def last_loss(rate: jax.Array) -> jax.Array:
        def move(held: tuple, step: jax.Array) -> tuple[tuple, None]:
            weights, state = held
            updates, state = scale.update(jax.grad(loss)(weights), state)
            return (weights - rate * (1 - step / steps) * updates, state), None

        weights = jnp.zeros((16, 8))
        (weights, _), _ = jax.lax.scan(move, (weights, scale.init(weights)), jnp.arange(steps))
        return loss(weights)

    return {rate: float(last_loss(jnp.float32(rate))) for rate in rates}


def test_lower_loss_than_adam_in_equal_steps_on_an_ill_conditioned_problem() -> None:
    """At each method's best learning rate, with the same linear decay to zero; Shampoo by far, SOAP by some."""
    rates, best = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), {}
    scales = {"shampoo": shampoo.scale_by_shampoo(), "soap": soap.scale_by_soap(), "adam": optax.scale_by_adam()}
    for name, scale in scales.items():
        losses = least_squares(scale, rates, 100)
        best[name] = min(losses.values())
        assert best[name] < min(losses[rates[0]], losses[rates[-1]]), f"{name}: best at the edge of {losses}"
    assert best["shampoo"] < 0.2 * best["adam"] and best["soap"] < 0.5 * best["adam"], best
