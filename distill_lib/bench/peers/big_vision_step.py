"""A step of the released big_vision code: its model, mixup, distance and optimiser, called as its distill trainer does.

The trainer's update function is made inside its `main`, so the few lines that join these parts are written again here;
the parts themselves are imported from the checkout. As its configurations say, everything is float32, the teacher
standardises its weights in every step, and parameters, optimiser state and random key are donated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """Loads the case's networks and images; see `distill_lib.bench.cases.describe` for what a case holds.

    Returns:
        The function of a step, and facts: version, device, parameters and logits of the check images.
    """
    sys.path.insert(0, case["checkout"])
    import jax
    import numpy as np
    from big_vision.models import bit_paper

    models = {
        role: bit_paper.Model(num_classes=case["classes"], depth=tuple(case[role]["stages"]), width=_factor(case, role))
        for role in case["roles"]
    }
    params = {role: _tree(case[role]["weights"]) for role in models}
    images = np.load(case["images"]).astype(np.float32) / 127.5 - 1
    data = {
        "image": images[: case["batch"]],
        "labels": np.eye(case["classes"], dtype=np.float32)[np.arange(case["batch"]) % case["classes"]],
    }
    shown = np.load(case["check"])
    answers = {role: jax.jit(models[role].apply)({"params": params[role]}, shown)[0] for role in models}
    facts = {
        "version": f"jax {jax.__version__}",
        "device": jax.default_backend(),
        "parameters": {role: sum(leaf.size for leaf in jax.tree.leaves(params[role])) for role in models},
        "logits": {role: np.asarray(logits).tolist() for role, logits in answers.items()},
    }
    update, optimiser = _update(case, models, params)
    held = [jax.device_put((params, optimiser, jax.random.PRNGKey(0)))]

    def step() -> None:
        *state, _, _ = update(*held[0], jax.device_put(data))
        held[0] = jax.block_until_ready(state)

    return step, facts


def _update(case: dict[str, Any], models: dict[str, Any], params: dict[str, Any]) -> tuple[Callable, Any]:
    """The jitted step and the optimiser's first state."""
    import jax
    import jax.numpy as jnp
    import ml_collections
    import optax
    from big_vision import optax as bv_optax
    from big_vision import utils as bv_utils
    from big_vision.evaluators.proj.distill import distance

    config = ml_collections.ConfigDict(
        {
            "grad_clip_norm": 1.0,
            "optax_name": "scale_by_adam",
            "optax": {"mu_dtype": "bfloat16"},
            "lr": case["learning_rate"],
            "wd": case["weight_decay"],
            "schedule": {"warmup_steps": case["warmup_steps"], "decay_type": "cosine"},
        }
    )
    lengths = {"total_steps": case["steps"], "batch_size": case["batch"], "data_size": case["batch"]}
    transform, _ = bv_optax.make(config, params["student"], sched_kw=lengths)

    def loss(student: Any, params: dict, data: dict) -> tuple:
        weights = params | {"student": student}
        logits = {
            role: models[role].apply({"params": weights[role]}, data["image"], train=role == "student")[0]
            for role in models
        }
        seen = {}
        for role, said in logits.items():
            seen[f"entropy_{role}"] = -jnp.sum(jax.nn.log_softmax(said) * jax.nn.softmax(said), axis=-1)
            seen[f"task_loss_{role}"] = bv_utils.softmax_xent(logits=said, labels=data["labels"], reduction=False)
        distances = distance.dist(logits["student"], logits["teacher"], "kl", t=case["temperature"])
        return jax.tree.map(jnp.mean, (distances, seen))

    def update(params: dict, optimiser: Any, key: Any, data: dict) -> tuple:
        key, _, data = bv_utils.mixup(key, p=1.0, **data)
        key, *_ = jax.random.split(key, len(models) + 1)
        student = params["student"]
        (value, seen), gradients = jax.value_and_grad(loss, has_aux=True)(student, params, data)
        updates, optimiser = transform.update(gradients, optimiser, student)
        student = optax.apply_updates(student, updates)
        for name, tree in (("grads", gradients), ("params", student), ("updates", updates)):
            seen[f"l2_{name}"] = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(tree)))
        return params | {"student": student}, optimiser, key, value, seen

    return jax.jit(update, donate_argnums=(0, 1, 2)), jax.jit(transform.init)(params["student"])


def _factor(case: dict[str, Any], role: str) -> int:
    return case[role]["width"] // 64


def _tree(path: str) -> dict:
    """Parameters from a file; names are those of the checkpoints, which big_vision has too."""
    import numpy as np

    tree: dict = {}
    with np.load(path) as file:
        for name in file.files:
            *groups, leaf = name.split("/")
            place = tree
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = file[name]
    return tree
