"""A state on several devices: Shampoo's matrices are shared out in training, and a checkpoint holds them together."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_lib import models, shampoo, sharding
from distill_lib.train import state as train_state
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
def start() -> train_state.State:
    """A student before its first step, on one device, as NumPy."""
    student = models.create(tiny.STUDENT, CLASSES)
    return jax.device_get(train_state.initial_state(student, 0, SHAPE, optimizer="shampoo"))


def batch(number: int) -> Batch:
    """Noise, and what a teacher might say of it."""
    numbers = np.random.default_rng(number)
    shown, wanted = (numbers.normal(size=(BATCH, *shape)).astype(np.float32) for shape in (SHAPE, (CLASSES,)))
    return Batch(shown, wanted)


def stacks(state: train_state.State) -> dict[str, jax.Array]:
    """Shampoo's statistics and roots, by kind and size."""
    found = [part for part in jax.tree.leaves(state.opt_state, is_leaf=is_shampoo) if is_shampoo(part)]
    (part,) = found
    kinds = {"statistics": part.statistics, "roots": part.roots}
    return {f"{kind} {size}": stack for kind, held in kinds.items() for size, stack in held.items()}


def is_shampoo(part: object) -> bool:
    return isinstance(part, shampoo.ShampooState)


@pytest.mark.slow
def test_devices_share_the_roots_in_training(start: train_state.State, mesh: Mesh) -> None:
    """Steps on two devices give the weights of one device; each computes half of the roots, and holds half."""
    student, recipe = models.create(tiny.STUDENT, CLASSES), tiny.recipe("mock", optimizer="shampoo")
    alone, shared = (step.learn(student, recipe, mesh=devices) for devices in (None, mesh))
    one, two = jax.tree.map(jnp.asarray, start), train_state.spread(start, "shampoo", mesh)
    split, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    settings = jax.device_put(SETTINGS, everywhere)
    program = shared.lower(two, settings, jax.device_put(batch(0), split)).compile().as_text()
    for number in range(STEPS):
        one = alone(one, SETTINGS, batch(number))
        two = shared(two, settings, jax.device_put(batch(number), split))
    for ours, theirs in zip(*(jax.tree.leaves((state.params, state.loss_sum)) for state in (one, two)), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(two.params))
    whole = stacks(one)
    loops = "".join(re.findall(r"while\(.*|.* while\(", program))
    for name, stack in stacks(two).items():
        half, side = -(-len(whole[name]) // 2), stack.shape[-1]
        assert {shard.data.shape for shard in stack.addressable_shards} == {(half, side, side)}
        assert f"f32[{half},{side},{side}]" in loops and f"f32[{len(stack)},{side},{side}]" not in loops
        np.testing.assert_allclose(stack[: len(whole[name])], whole[name], rtol=2e-2, atol=1e-4 * np.abs(stack).max())


def test_a_checkpoint_does_not_depend_on_the_number_of_devices(start: train_state.State, mesh: Mesh) -> None:
    """What fills stacks up for two devices is left out, and filled up again; nothing else changes."""
    spread = train_state.spread(start, "shampoo", mesh)
    assert any(len(stack) > len(stacks(start)[name]) for name, stack in stacks(spread).items())
    back = train_state.gathered(spread, "shampoo")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(back), start)
    again = train_state.spread(back, "shampoo", mesh)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(spread))
