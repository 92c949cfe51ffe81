"""What a step changes: the state of a student, and where it begins."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distill_lib import models, optim, sharding


class State(NamedTuple):
    """What a step changes; it lies whole on every device."""

    step: jax.Array  # how many are done
    params: dict[str, Any]  # what the optimiser moves
    statistics: dict[str, Any]  # the student's other variables, such as running means of BatchNorm; often empty
    opt_state: Any
    loss_sum: jax.Array  # since the last report
    last: jax.Array  # loss and length of the gradient before it is clipped, of the last step
    largest: jax.Array  # of both, since the last report

    @property
    def variables(self) -> models.Variables:
        """The student as `models.logits` wants it."""
        return {"params": self.params} | self.statistics


def initial_state(
    student: nn.Module,
    seed: int,
    image_shape: tuple[int, int, int],
    *,
    optimizer: str = "adam",
    start: models.Variables | None = None,
) -> State:
    """The state before the first step, from the student's first variables, or from a seed that draws them."""
    if start is None:
        start = models.init(student, jax.random.fold_in(jax.random.key(seed), 0), image_shape)
    statistics = {name: tree for name, tree in start.items() if name != "params"}
    params = jax.tree.map(jnp.asarray, start["params"])
    untuned = optim.create(optimizer, 1.0, 0.0, total_steps=1, warmup_steps=0)  # numbers do not change its state's form
    return State(jnp.zeros((), jnp.int32), params, statistics, untuned.init(params), jnp.zeros(()), *jnp.zeros((2, 2)))


def state_shapes(
    student: nn.Module, image_shape: tuple[int, int, int], optimizer: str = "adam", mesh: Mesh | None = None
) -> State:
    """The state of one student as shapes, dtypes and, with a mesh, where it lies; nothing is computed."""
    begun = functools.partial(initial_state, student, 0, image_shape, optimizer=optimizer)
    state: State = jax.eval_shape(begun, start=models.shapes(student, image_shape))
    if mesh is None:
        return state
    place = sharding.everywhere(mesh)
    laid: State = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state)
    return laid
