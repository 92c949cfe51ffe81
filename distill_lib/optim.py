"""The optimisers of the study: clipped gradients, decoupled weight decay on kernels, linear warm-up and decay to zero.

Beyer et al., CVPR 2022, section 3.1 and appendix, and the released configuration for the order of the chain;
Kolesnikov et al., "Big Transfer (BiT)", ECCV 2020, section 3.3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distill_lib import shampoo, soap
from distill_lib.errors import unknown

Number = float | jax.Array
OPTIMIZERS = ("adam", "sgd", "sgd_unclipped", "shampoo", "soap", "muon", "schedule_free")
SCHEDULES = ("cosine", "quadratic", "staircase", "constant")
DECAYS = ("schedule", "adamw")
STAIRS = (3, 6, 9)  # tenths of a run after which the staircase falls
STAIR = 0.1  # what is left after each


def multiplier(schedule: str, total_steps: Number, warmup_steps: Number) -> optax.Schedule:
    """Multiplier in [0, 1] of learning rate and weight decay, by step from 0: linear in the warm-up, then down.

    `schedule` is "cosine", half a cosine down to 0; "quadratic", a parabola down to 0 (the paper's appendix D); or
    "staircase", divided by 10 after 30, 60 and 90 % of all steps (BiT, section 3.3); or "constant", which stays up.
    DistillError for any other.
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)

    def factor(step: jax.Array) -> jax.Array:
        rise = jnp.where(step < warmup_steps, step / jnp.maximum(1, warmup_steps), 1.0)
        if schedule == "constant":
            return rise
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

    "adam" has its first moment in bfloat16; "sgd" momentum of 0.9 in bfloat16; "sgd_unclipped" in float32 and without
    clipping, as BiT's fine-tuning; "shampoo" is `shampoo.scale_by_shampoo`, whose roots devices of a mesh, along one
    axis "data", share; "soap" `soap.scale_by_soap`; "muon" `optax.contrib.muon`, with steps of Adam's size, for all
    kernels but the head's; and "schedule_free" AdamW that averages weights instead of gradients (Defazio et al., "The
    road less scheduled", 2024). This average, which `averaged` gives, replaces the decay of the schedule, which is to
    be "constant"; statistics of BatchNorm stay those of the steps.

    Learning rate and weight decay, a fraction of each kernel that a step takes off, are those at the peak of the
    schedule (see `multiplier`). In the paper weight decay is *not* multiplied by the learning rate, as it is with the
    decay "adamw". The structure of the state does not depend on the numbers. DistillError for unknown names.
    """
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    if decay not in DECAYS:
        raise unknown("decay", decay, DECAYS)
    factor = multiplier(schedule, total_steps, warmup_steps)
    chain = optax.chain(
        optax.identity() if optimizer == "sgd_unclipped" else optax.clip_by_global_norm(1.0),
        _core(optimizer, mesh),
        optax.scale(learning_rate),
        optax.add_decayed_weights(weight_decay * learning_rate if decay == "adamw" else weight_decay, mask=is_kernel),
        optax.scale_by_schedule(factor),
        optax.scale(-1.0),
    )
    # it counts from 1; only ratios of rates weigh the steps
    return optax.contrib.schedule_free(chain, lambda step: factor(step - 1)) if optimizer == "schedule_free" else chain


def averaged(params: optax.Params, state: optax.OptState) -> optax.Params:
    """The weights that a network is to be used with: by "schedule_free" an average over steps, else the parameters."""
    if isinstance(state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state, params)
    return params


def _core(optimizer: str, mesh: Mesh | None) -> optax.GradientTransformation:
    if optimizer == "adam":
        return optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=jnp.bfloat16)
    if optimizer in ("sgd", "sgd_unclipped"):
        return optax.trace(0.9, accumulator_dtype=jnp.bfloat16 if optimizer == "sgd" else jnp.float32)
    if optimizer == "shampoo":
        return shampoo.scale_by_shampoo(mesh=mesh)
    if optimizer == "soap":
        return soap.scale_by_soap()
    if optimizer == "schedule_free":
        return optax.scale_by_rms(decay=0.999, eps=1e-8, eps_in_sqrt=False, bias_correction=True)
    muon = optax.contrib.muon(1.0, consistent_rms=0.2, muon_weight_dimension_numbers=_muon_axes)
    return optax.chain(muon, optax.scale(-1.0))  # its own learning rate of 1 turned the sign already


def _muon_axes(params: optax.Params) -> optax.Params:
    """Rows and columns of kernels that Muon moves (Jordan et al., 2024; Liu et al., 2025, section 2.2), else None."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        rows = shampoo.row_axes(leaf.shape)
        if rows is None or path[-1].key != "kernel" or path[0].key == "head":
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(rows)), tuple(range(rows, leaf.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)
