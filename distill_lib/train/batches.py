"""The batches of a run, one a step: what students are shown, and what the teacher says of it."""

import contextlib
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import sharding
from distill_lib.train import step
from distill_lib.train.step import Batch
from distill_lib.train.task import Task

BATCHES_AHEAD = 2  # that may wait for students; each holds its images on the device


def most_ahead() -> int:
    """How many batches the host may be ahead: none of several CPU devices, which would wait for each other for ever."""
    return 0 if jax.default_backend() == "cpu" and jax.device_count() > 1 else BATCHES_AHEAD


def batches(task: Task, start: int, mesh: Mesh) -> Generator[Batch, None, None]:
    """The batches of a task from a step on, endless; DistillError if stored soft labels do not fit. To be closed."""
    recipe, store, (teacher, variables) = task.recipe, task.store, task.asked
    teach = step.teach(recipe, teacher, task.num_classes)
    everywhere, split = sharding.everywhere(mesh), sharding.split(mesh)
    key = jax.jit(lambda: step.view_key(recipe.order_seed), out_shardings=everywhere)()
    variables = sharding.put(variables, everywhere)
    sizes = teacher.sizes(recipe.resolution) if teacher else []
    temperature = np.float32(recipe.temperature)
    with contextlib.closing(task.train.batches(recipe, start, mesh, task.fixed_targets(), sizes)) as given:
        for number, pixels in given:
            asked: Any = variables if store is None else sharding.put(store.read(number), split)
            batch = teach(key, np.int32(number), pixels, asked, temperature)
            if store is not None:
                store.check(number, batch.images)
            yield batch
