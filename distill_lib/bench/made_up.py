"""A preset as it would run, but with a teacher of random weights and made-up images, so that nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distill_lib import datasets, models, recipes, teachers
from distill_lib.bench.cases import drawn
from distill_lib.errors import unknown
from distill_lib.recipes import Recipe
from distill_lib.teachers import published
from distill_lib.weights import load_metadata, save_npz, unflatten

BATCHES = 2  # of mock images


def like(recipe: Recipe, folder: Path, *, steps: int = 2 * BATCHES, **changes: Any) -> Recipe:
    """The same networks, sizes and dtype on mock images: the speed is the preset's, results mean nothing.

    Args:
        recipe: a preset whose teacher is published or embedded.
        folder: where the teacher's file is written.
        steps: that the run is long.
        **changes: further fields.

    Raises:
        DistillError: for a preset with another teacher.
    """
    if recipe.teacher in published.CHECKPOINTS:
        name = published.CHECKPOINTS[recipe.teacher].model
    elif recipe.teacher in teachers.EMBEDDED:
        name = load_metadata(teachers.EMBEDDED[recipe.teacher])["model"]
    else:
        raise unknown("published or embedded teacher", recipe.teacher, [*published.CHECKPOINTS, *teachers.EMBEDDED])
    dataset = datasets.get(recipe.dataset)
    shape = (recipe.resolution, recipe.resolution, dataset.channels)
    weights = drawn(np.random.default_rng(0), models.create(name, dataset.num_classes), shape)
    save_npz(folder / "teacher.npz", unflatten(weights), {"model": name})
    same = ("policy", "student", "batch_size", "resolution", "temperature", "learning_rate", "weight_decay", "dtype")
    settings = {field: getattr(recipe, field) for field in same} | {"train_images": BATCHES * recipe.batch_size}
    settings |= {"teacher": str(folder / "teacher.npz"), "evaluations": 1, "epochs": steps / BATCHES}
    return recipes.get(recipe.dataset, "smoke", **(settings | changes))
