"""The paper's optimiser: clipped Adam, decoupled weight decay on kernels, linear warm-up and cosine decay.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, section 3.1 and
    appendix; the order of the chain is the released configuration's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

Number = float | jax.Array


def warmup_cosine(total_steps: Number, warmup_steps: Number) -> optax.Schedule:
    """Multiplier of the learning rate and the weight decay: linear from 0 to 1, then half a cosine down to 0.

    Args:
        total_steps: steps of the whole run.
        warmup_steps: steps of the linear part, fewer than `total_steps`.

    Returns:
        A function from the step (counted from 0) to a factor in [0, 1].
    """

    def multiplier(step: jax.Array) -> jax.Array:
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        rise = jnp.where(step < warmup_steps, step / jnp.maximum(1, warmup_steps), 1.0)
        return rise * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))

    return multiplier


def is_kernel(params: optax.Params) -> optax.Params:
    """Marks what weight decay shrinks: every `kernel` (convolutions and head), no scale and no bias."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def adam(
    learning_rate: Number, weight_decay: Number, *, total_steps: Number, warmup_steps: Number
) -> optax.GradientTransformation:
    """The paper's chain.

    Weight decay follows the schedule and is *not* multiplied by the learning rate, so AdamW's coefficient is
    `weight_decay / learning_rate`.

    Args:
        learning_rate: peak learning rate.
        weight_decay: fraction of each kernel that is taken off a step, at the schedule's peak.
        total_steps: steps of the whole run.
        warmup_steps: steps of the linear warm-up.

    Returns:
        The optax transformation; its state keeps Adam's first moment in bfloat16.
    """
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=jnp.bfloat16),
        optax.scale(learning_rate),
        optax.add_decayed_weights(weight_decay, mask=is_kernel),
        optax.scale_by_schedule(warmup_cosine(total_steps, warmup_steps)),
        optax.scale(-1.0),
    )
