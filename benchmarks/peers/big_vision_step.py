"""A step of the released big_vision code: its model, mixup, distance and optimiser, called as its distill trainer does.

The trainer's update function is made inside its `main`, so the few lines that join these parts are written again here;
the parts themselves are imported from the checkout. As its configurations say, everything is float32, the teacher
standardises its weights in every step, and parameters, optimiser state and random key are donated.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """The function of a step, and facts: version, device, and logits of the check images."""
    sys.path.insert(0, case["checkout"])
    import flax
    import jax
    import numpy as np
    from big_vision.models import bit_paper

    models, params = {}, {}
    for role, about in case["roles"].items():
        depth, width = tuple(about["stages"]), about["width"] // 64
        models[role] = bit_paper.Model(num_classes=case["classes"], depth=depth, width=width)
        with np.load(about["weights"]) as file:  # names are those of the checkpoints, which big_vision has too
            flat = {name: file[name] for name in file.files if "/" in name}
        params[role] = flax.traverse_util.unflatten_dict(flat, sep="/")
    images = np.load(case["images"]).astype(np.float32) / 127.5 - 1
    labels = np.eye(case["classes"], dtype=np.float32)[np.arange(case["batch_size"]) % case["classes"]]
    data = {"image": images[: case["batch_size"]], "labels": labels}
    check = np.load(case["check"])
    answers = {role: jax.jit(model.apply)({"params": params[role]}, check)[0] for role, model in models.items()}
    asked = ["git", "-C", case["checkout"], "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"
    facts = {
        "version": f"commit {commit} jax {jax.__version__}",
        "device": jax.default_backend(),
        "logits": {role: np.asarray(logits).tolist() for role, logits in answers.items()},
    }
    update, optimiser = _update(case, models, params)
    held = [jax.device_put((params, optimiser, jax.random.PRNGKey(0)))]

    def step() -> None:
        *state, _, _ = update(*held[0], jax.device_put(data))
        held[0] = jax.block_until_ready(state)

    return step, facts


def _update(case: dict[str, Any], models: dict[str, Any], params: dict[str, Any]) -> tuple[Callable[..., Any], Any]:
    import jax
    import jax.numpy as jnp
    import ml_collections
    import optax
    from big_vision import optax as bv_optax
    from big_vision import utils as bv_utils
    from big_vision.evaluators.proj.distill import distance

    numbers = {"lr": case["learning_rate"], "wd": case["weight_decay"], "grad_clip_norm": 1.0}
    adam = {"optax_name": "scale_by_adam", "optax": {"mu_dtype": "bfloat16"}}
    schedule = {"warmup_steps": case["warmup_steps"], "decay_type": "cosine"}
    config = ml_collections.ConfigDict({**numbers, **adam, "schedule": schedule})
    lengths = {"total_steps": case["steps"], "batch_size": case["batch_size"], "data_size": case["batch_size"]}
    transform, _ = bv_optax.make(config, params["student"], sched_kw=lengths)

    def loss(student: Any, params: dict[str, Any], data: dict[str, Any]) -> Any:
        weights = params | {"student": student}
        logits = {
            role: models[role].apply({"params": weights[role]}, data["image"], train=role == "student")[0]
            for role in models
        }
        seen = {}
        for role, answer in logits.items():
            seen[f"entropy_{role}"] = -jnp.sum(jax.nn.log_softmax(answer) * jax.nn.softmax(answer), axis=-1)
            seen[f"task_loss_{role}"] = bv_utils.softmax_xent(logits=answer, labels=data["labels"], reduction=False)
        distances = distance.dist(logits["student"], logits["teacher"], "kl", t=case["temperature"])
        return jax.tree.map(jnp.mean, (distances, seen))

    def update(params: dict[str, Any], optimiser: Any, key: Any, data: dict[str, Any]) -> Any:
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
