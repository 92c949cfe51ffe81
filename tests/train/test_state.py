"""A state on several devices: it is whole on each, and Shampoo's roots are shared out."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh

from distill_lib import models, shampoo, sharding
from distill_lib.train import step
from distill_lib.train.step import Batch

pytestmark = pytest.mark.usefixtures("tiny_models")

BATCH, CLASSES, STEPS = 16, 10, 14  # Shampoo takes Adam's steps in the first ten
SHAPE = (tiny.SIDE, tiny.SIDE, 1)
SETTINGS = step.Settings(*(jnp.asarray(value) for value in (1e-2, 1e-4, 2.0, 0.0, 100, 2)))


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """Both devices."""
    return sharding.data_mesh(2)


@pytest.fixture(scope="module")
def start() -> step.State:
    """A student before its first step, on one device, as NumPy."""
    student = models.create(tiny.STUDENT, CLASSES)
    return jax.device_get(step.initial_state(student, 0, SHAPE, optimizer="shampoo"))


def batch(number: int) -> Batch:
    """Noise, and what a teacher might say of it."""
    numbers = np.random.default_rng(number)
    shown, wanted = (numbers.normal(size=(BATCH, *shape)).astype(np.float32) for shape in (SHAPE, (CLASSES,)))
    return Batch(shown, wanted)


@pytest.mark.slow
def test_devices_share_the_roots_in_training(start: step.State, mesh: Mesh) -> None:
    """Steps on two devices give the weights of one; each computes half of the roots, and holds the whole state."""
    student, recipe = models.create(tiny.STUDENT, CLASSES), tiny.recipe("mock", optimizer="shampoo")
    alone, shared = (step.learn(student, recipe, mesh=devices) for devices in (None, mesh))
    everywhere, split = sharding.everywhere(mesh), sharding.split(mesh)
    one, two = jax.tree.map(jnp.asarray, start), jax.device_put(start, everywhere)
    settings = jax.device_put(SETTINGS, everywhere)
    program = shared.lower(two, settings, jax.device_put(batch(0), split)).compile().as_text()
    for number in range(STEPS):
        one = alone(one, SETTINGS, batch(number))
        two = shared(two, settings, jax.device_put(batch(number), split))
    for ours, theirs in zip(*(jax.tree.leaves((state.params, state.loss_sum)) for state in (one, two)), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(two))
    loops = "".join(re.findall(r"while\(.*|.* while\(", program))
    (matrices,) = (part for part in jax.tree.leaves(one.opt_state, is_leaf=is_shampoo) if is_shampoo(part))
    stacks = jax.tree.leaves(matrices.statistics)
    for side in {stack.shape[-1] for stack in stacks}:
        half = -(-sum(len(stack) for stack in stacks if stack.shape[-1] == side) // 2)
        assert f"f32[{half},{side},{side}]" in loops and f"f32[{2 * half},{side},{side}]" not in loops


def is_shampoo(part: object) -> bool:
    return isinstance(part, shampoo.ShampooState)
