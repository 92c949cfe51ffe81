"""A short run of a preset in the training loop, with a teacher of random weights on made-up images: seconds a step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from distill_lib.bench import loop, made_up, timing


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times steps of a run.

    Returns:
        One row: the networks and sizes, seconds a step, images a second, and operations a second of networks.
    """
    options = timing.options(measure, arguments, dataset="flowers", variant="fast", steps=200)
    from distill_lib import datasets, models, recipes, weights
    from distill_lib.models import flops
    from distill_lib.train import setup

    with tempfile.TemporaryDirectory() as folder:
        preset = recipes.get(options.dataset, options.variant)
        recipe = made_up.like(preset, Path(folder), learning_rate=loop.RATE)
        teacher = weights.load_metadata(Path(recipe.teacher))["model"]
        work = setup.prepare(recipe)
        loop.trained(work, loop.FEW)  # compiles
        step = loop.per_step(work, options.steps)
    classes = datasets.get(recipe.dataset).num_classes
    answer, student = (flops.macs(models.create(name, classes), work.image_shape) for name in (teacher, recipe.student))
    rate = recipe.batch_size / step
    return [
        {
            "student": recipe.student,
            "teacher": teacher,
            "side": recipe.resolution,
            "images": recipe.batch_size,
            "dtype": recipe.dtype,
            "steps": options.steps,
            "step (ms)": 1e3 * step,
            "images/s": rate,
            "TFLOP/s": 2e-12 * rate * (3 * student + answer),
        }
    ]
