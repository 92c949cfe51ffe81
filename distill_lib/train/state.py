"""What a step changes: the state of a student, where it begins, and how it lies on devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_lib import models, optim, shampoo


class State(NamedTuple):
    """What a step changes.

    Attributes:
        step: steps done.
        params: what the optimiser moves.
        statistics: the student's other variables, such as running means of BatchNorm; often empty.
        opt_state: of the optimiser.
        loss_sum: sum of the losses since the last report.
    """

    step: jax.Array
    params: dict[str, Any]
    statistics: dict[str, Any]
    opt_state: Any
    loss_sum: jax.Array

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
    """The state before the first step; `spread` lays it out on devices.

    Args:
        student: the module to train.
        seed: of the initialisation.
        image_shape: height, width and channels of a rendered image.
        optimizer: a name in `optim.OPTIMIZERS`.
        start: the student's first variables; None draws them.
    """
    if start is None:
        start = models.init(student, jax.random.fold_in(jax.random.key(seed), 0), image_shape)
    statistics = {name: tree for name, tree in start.items() if name != "params"}
    params = jax.tree.map(jnp.asarray, start["params"])
    opt_state = _untuned(optimizer).init(params)
    return State(jnp.zeros((), jnp.int32), params, statistics, opt_state, jnp.zeros(()))


def state_shapes(
    student: nn.Module, image_shape: tuple[int, int, int], optimizer: str = "adam", mesh: Mesh | None = None
) -> State:
    """The state of one student as shapes, dtypes and, with a mesh, the layout of `spread`; nothing is computed."""
    variables = models.shapes(student, image_shape)
    statistics = {name: tree for name, tree in variables.items() if name != "params"}
    opt_state = jax.eval_shape(_untuned(optimizer, mesh).init, variables["params"])
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    loss: Any = jax.ShapeDtypeStruct((), jnp.float32)
    state = State(count, variables["params"], statistics, opt_state, loss)
    if mesh is None:
        return state
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, state, _layout(state, mesh))


def state_bytes(student: nn.Module, image_shape: tuple[int, int, int], optimizer: str = "adam") -> int:
    """Memory that the state of one student takes: parameters, statistics and optimiser state; nothing is computed."""
    state = state_shapes(student, image_shape, optimizer)
    leaves = jax.tree.leaves((state.variables, state.opt_state))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def spread(state: State, optimizer: str, mesh: Mesh) -> State:
    """Lays a state out on devices, as the steps of `learn` with this mesh want it.

    Shampoo's matrices are shared out, and zeros fill them up to a multiple of the devices; all else is everywhere.

    Args:
        state: as `initial_state` or `gathered` gives it.
        optimizer: a name in `optim.OPTIMIZERS`.
        mesh: devices along one axis "data".
    """
    shapes = jax.eval_shape(_untuned(optimizer, mesh).init, state.params)
    state = state._replace(opt_state=jax.tree.map(_filled, state.opt_state, shapes))
    return jax.device_put(state, _layout(state, mesh))


def _layout(state: State, mesh: Mesh) -> State:
    """The sharding of each leaf of a state on a mesh."""
    specs = jax.tree.map(lambda _: PartitionSpec(), state)._replace(opt_state=shampoo.state_specs(state.opt_state))
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def gathered(state: State, optimizer: str) -> State:
    """Undoes the filling of `spread`, so that a checkpoint can be taken up on any number of devices."""
    shapes = jax.eval_shape(_untuned(optimizer).init, state.params)
    return state._replace(opt_state=jax.tree.map(_filled, state.opt_state, shapes))


def _filled(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """A stack of matrices with as many of them as another; zeros are appended, or taken off."""
    if leaf.shape == like.shape:
        return leaf
    missing = max(0, like.shape[0] - len(leaf))
    return jnp.pad(leaf[: like.shape[0]], ((0, missing), (0, 0), (0, 0)))


def _untuned(optimizer: str, mesh: Mesh | None = None) -> optax.GradientTransformation:
    """An optimiser for its state alone, whose form no setting changes."""
    return optim.create(optimizer, 1.0, 0.0, total_steps=1, warmup_steps=0, mesh=mesh)
