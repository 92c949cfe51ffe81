"""The optimisers of the study: clipped gradients, decoupled weight decay on kernels, linear warm-up and decay to zero.

The paper's students are trained by Adam with cosine decay; Shampoo with quadratic decay is its faster alternative.
Teachers are fine-tuned by plain SGD, whose learning rate falls in steps.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, section 3.1 and
    appendix; the order of the chain is the released configuration's.
    Kolesnikov et al., "Big Transfer (BiT): General visual representation learning", ECCV 2020, section 3.3.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distill_lib import shampoo
from distill_lib.errors import unknown

Number = float | jax.Array
OPTIMIZERS = ("adam", "sgd", "sgd_unclipped", "shampoo", "muon")
SCHEDULES = ("cosine", "quadratic", "staircase")
DECAYS = ("schedule", "adamw")
STAIRS = (3, 6, 9)  # tenths of a run after which the staircase falls
STAIR = 0.1  # what is left after each


def multiplier(schedule: str, total_steps: Number, warmup_steps: Number) -> optax.Schedule:
    """Multiplier of the learning rate and the weight decay: linear from 0 to 1 in the warm-up, then down.

    Args:
        schedule: "cosine", half a cosine down to 0; "quadratic", a parabola down to 0 (the paper's for Shampoo,
            appendix D); or "staircase", constant and divided by 10 after 30, 60 and 90 % of all steps (BiT, section
            3.3). DistillError for any other.
        total_steps: steps of the whole run.
        warmup_steps: steps of the linear part, fewer than `total_steps`.

    Returns:
        A function from the step (counted from 0) to a factor in [0, 1].
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)

    def factor(step: jax.Array) -> jax.Array:
        rise = jnp.where(step < warmup_steps, step / jnp.maximum(1, warmup_steps), 1.0)
        if schedule == "staircase":
            fallen = sum(10 * step >= tenths * total_steps for tenths in STAIRS)  # whole numbers: no step is rounded
            return rise * STAIR**fallen
        progress = jnp.clip((step - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        if schedule == "quadratic":
            return rise * jnp.square(1.0 - progress)
        return rise * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return factor


def is_kernel(params: optax.Params) -> optax.Params:
    """Marks what weight decay shrinks: every `kernel` (convolutions and head), no scale and no bias."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def create(
    optimizer: str,
    learning_rate: Number,
    weight_decay: Number,
    *,
    total_steps: Number,
    warmup_steps: Number,
    schedule: str = "cosine",
    decay: str = "schedule",
    mesh: Mesh | None = None,
) -> optax.GradientTransformation:
    """An optimiser in the paper's chain: clip, optimiser, learning rate, weight decay, schedule, minus one.

    In the paper weight decay follows the schedule and is *not* multiplied by the learning rate, so AdamW's coefficient
    is `weight_decay / learning_rate`.

    Args:
        optimizer: one of `OPTIMIZERS`. "adam" keeps its first moment in bfloat16. "sgd" has plain momentum of 0.9, kept
            in bfloat16, as the paper's code base has it for training on labels. "sgd_unclipped" keeps it in float32
            and takes gradients of any length as they are, as BiT's fine-tuning does. "shampoo" is
            `shampoo.scale_by_shampoo`. "muon" is `optax.contrib.muon`: it moves all kernels but the head's, seen as
            matrices, by steps of the size of Adam's, and all else by Adam with Nesterov momentum.
        learning_rate: peak learning rate.
        weight_decay: fraction of each kernel that is taken off a step, at the schedule's peak.
        total_steps: steps of the whole run, as in `multiplier`.
        warmup_steps: of them.
        schedule: one of `SCHEDULES`, how learning rate and weight decay fall.
        decay: one of `DECAYS`: weight decay as in the paper, or multiplied by the learning rate as in AdamW.
        mesh: devices along one axis "data" that share the computing of Shampoo's roots; None has one compute all.

    Returns:
        The optax transformation; with defaults the paper's. The structure of its state does not depend on the numbers.
        DistillError if a name is unknown.
    """
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if decay not in DECAYS:
        raise unknown("decay", decay, DECAYS)
    return optax.chain(
        optax.identity() if optimizer == "sgd_unclipped" else optax.clip_by_global_norm(1.0),
        _core(optimizer, mesh),
        optax.scale(learning_rate),
        optax.add_decayed_weights(weight_decay * learning_rate if decay == "adamw" else weight_decay, mask=is_kernel),
        optax.scale_by_schedule(multiplier(schedule, total_steps, warmup_steps)),
        optax.scale(-1.0),
    )


def _core(optimizer: str, mesh: Mesh | None) -> optax.GradientTransformation:
    """What turns a gradient into a direction."""
    if optimizer == "adam":
        return optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=jnp.bfloat16)
    if optimizer in ("sgd", "sgd_unclipped"):
        return optax.trace(0.9, accumulator_dtype=jnp.bfloat16 if optimizer == "sgd" else jnp.float32)
    if optimizer == "shampoo":
        return shampoo.scale_by_shampoo(mesh=mesh)
    muon = optax.contrib.muon(1.0, consistent_rms=0.2, muon_weight_dimension_numbers=_muon_axes)
    return optax.chain(muon, optax.scale(-1.0))  # its own learning rate of 1 turned the sign already


def _muon_axes(params: optax.Params) -> optax.Params:
    """Rows and columns of the kernels that Muon moves; None for what Adam moves: vectors and the head.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024: hidden layers only.
        Liu et al., "Muon is scalable for LLM training", 2025, section 2.2: steps with Adam's root mean square.
    """

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        rows = shampoo.row_axes(leaf.shape)
        if rows is None or path[-1].key != "kernel" or path[0].key == "head":
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(rows)), tuple(range(rows, leaf.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)
