"""A step of this library, as the training loop does it: a batch, then the move of each student."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models
from distill_lib.bench import students, timing
from distill_lib.models import flops
from distill_lib.recipes import Recipe
from distill_lib.train import setup
from distill_lib.views import Crops

PEAK_SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}  # of the matrices whose product is taken as the device's peak


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """The function of a step, and facts: version, device, parameters and the like, and the measured peak in FLOP/s."""
    fields = {field.name: case[field.name] for field in dataclasses.fields(Recipe)}
    task = setup.prepare(Recipe(**fields | {"crop_area": tuple(case["crop_area"])}))
    nets = {role: models.create(about["name"], task.num_classes) for role, about in case["roles"].items()}
    check = np.load(case["check"])
    logits = {"student": jax.jit(models.logits, static_argnums=0)(task.student, task.start, check)}
    if task.teacher:
        logits["teacher"] = jax.jit(task.teacher.logits)(check)
    side = PEAK_SIDE[jax.default_backend()]
    ones, product = jnp.ones((side, side), task.recipe.dtype), jax.jit(jnp.matmul)
    facts = {
        "version": f"jax {jax.__version__}",
        "device": jax.default_backend(),
        "parameters": {role: flops.parameters(net, task.image_shape) for role, net in nets.items()},
        "macs": {role: flops.macs(net, task.image_shape) for role, net in nets.items()},
        "logits": {role: np.asarray(each).tolist() for role, each in logits.items()},
        "peak": 2 * side**3 / min(timing.seconds(lambda: product(ones, ones).block_until_ready()) for _ in range(11)),
    }
    images, given = np.load(case["images"]), None
    if not case["renders"]:  # the host has made crops, and mixup alone is part of the step
        crops = Crops(images, {}, np.arange(len(images)) % task.num_classes)
        given = students.batches_of(task, (jax.device_put(crops) for _ in itertools.count()))
    return students.Students(task, case["students"], given).run, facts
