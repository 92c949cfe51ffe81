"""SOAP against Adam in eigenbases, written out in NumPy, and against what must not change its steps."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_lib import soap

MOMENTUM, DECAY, EVERY = 0.9, 0.99, 3
SHAPES = {"matrix": (4, 4), "convolution": (2, 2, 2, 8), "cut": (8, 4), "scale": (1, 1, 6), "scalar": ()}


def make_gradients(steps: int, shapes: dict[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> list[dict]:
    """A gradient tree for every step."""
    numbers = np.random.default_rng(seed)
    return [
        {name: numbers.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(steps)
    ]


def moved(gradients: list[dict], block_size: int = 4, every: int = EVERY) -> list[dict]:
    """What SOAP makes of the gradients of each step."""
    transform = soap.scale_by_soap(block_size=block_size, momentum=MOMENTUM, decay=DECAY, every=every)
    state, steps, update = transform.init(gradients[0]), [], jax.jit(transform.update)
    for tree in gradients:
        step, state = update(tree, state)
        steps.append(step)
    return steps


def by_hand(blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Steps of one block, in double precision."""
    left = right = mean = second = 0.0
    rows, columns, steps = np.eye(4), np.eye(4), []
    for number, block in enumerate(np.asarray(blocks, np.float64), 1):
        left, right = DECAY * left + (1 - DECAY) * block @ block.T, DECAY * right + (1 - DECAY) * block.T @ block
        mean = MOMENTUM * mean + (1 - MOMENTUM) * block
        second = DECAY * second + (1 - DECAY) * (rows.T @ block @ columns) ** 2
        first = rows.T @ mean @ columns / (1 - MOMENTUM**number)
        steps.append(rows @ (first / np.sqrt(second / (1 - DECAY**number))) @ columns.T)
        if number % EVERY == 1:
            rows, columns = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
    return steps


def test_steps_are_adams_in_the_eigenbases_of_each_block() -> None:
    """Of matrices, kernels of convolutions as (h w in, out), and blocks of what is larger; bases are kept between."""
    gradients = make_gradients(8)
    steps = moved(gradients)
    places = {"matrix": [np.s_[:]], "cut": [np.s_[:4], np.s_[4:]]}
    places["convolution"] = [np.s_[top : top + 4, left : left + 4] for top in (0, 4) for left in (0, 4)]
    for name, several in places.items():
        matrices, ours = (
            [np.asarray(tree[name]).reshape(-1, SHAPES[name][-1]) for tree in each] for each in (gradients, steps)
        )
        for place in several:
            expected = by_hand([matrix[place] for matrix in matrices])
            for number, step in enumerate(expected):
                np.testing.assert_allclose(ours[number][place], step, rtol=2e-3, atol=2e-3, err_msg=f"{name}, {number}")


def test_eigenvectors_are_asked_of_one_matrix_at_a_time() -> None:
    """`eigh` of several waits in JAX before 0.11.2 for threads that its own kind may hold: nothing would go on."""
    shapes = {"cut": (9, 12), "kernel": (3, 3, 4, 8)}
    (gradients,), transform = make_gradients(1, shapes), soap.scale_by_soap(block_size=4)
    text = str(jax.make_jaxpr(transform.update)(gradients, transform.init(gradients)))
    asked = re.findall(r":f32\[([\d,]+)\] \w+:f32\[[\d,]+\] = eigh\b", text)
    assert asked and {len(shape.split(",")) for shape in asked} == {2}


def test_what_is_no_matrix_moves_by_adam() -> None:
    gradients, adam = make_gradients(8), optax.scale_by_adam(MOMENTUM, DECAY)
    state = adam.init(jax.tree.map(jnp.asarray, gradients[0]))
    for tree, ours in zip(gradients, moved(gradients), strict=True):
        expected, state = adam.update(tree, state)
        for name in ("scale", "scalar"):
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (3, 3, 1, 9), (6, 2, 3)])
def test_steps_keep_the_shape_of_what_is_cut_unevenly(shape: tuple[int, ...]) -> None:
    """The zeros that fill up blocks move nothing, and are not seen; steps have the size of Adam's."""
    step = np.asarray(moved(make_gradients(9, {"kernel": shape}))[-1]["kernel"])
    assert step.shape == shape and 0.05 < np.sqrt(np.square(step).mean()) < 1
