"""A short run of a preset in the training loop, with a teacher of random weights on made-up images: seconds a step."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from distill_lib.bench import made_up, timing

FIRST = 20  # steps of the run that is subtracted


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times steps of a run as the difference of a long and a short one; start and evaluation are in both.

    Args:
        arguments: `--dataset`, `--variant`, `--steps N`.

    Returns:
        One row: the networks and sizes, seconds a step, images a second, and operations a second of networks.
    """
    parser = timing.parser(measure)
    parser.add_argument("--dataset", default="flowers")
    parser.add_argument("--variant", default="fast")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args(arguments)
    from distill_lib import datasets, models, recipes, train, weights
    from distill_lib.models import flops

    with tempfile.TemporaryDirectory() as folder:
        preset = recipes.get(options.dataset, options.variant)
        recipe = made_up.like(preset, Path(folder), learning_rate=1e-4)  # a teacher of nonsense could make it diverge
        teacher = weights.load_metadata(Path(recipe.teacher))["model"]
        seconds = []
        for number, steps in enumerate((FIRST, FIRST, FIRST + options.steps)):  # the first one compiles
            run = dataclasses.replace(recipe, epochs=steps / made_up.BATCHES, seed=number)
            seconds.append(train.fit(run, Path(folder, "results")).record["wall_seconds"])
    dataset, step = datasets.get(recipe.dataset), (seconds[2] - seconds[1]) / options.steps
    shape = (recipe.resolution, recipe.resolution, dataset.channels)
    networks = (models.create(name, dataset.num_classes) for name in (teacher, recipe.student))
    answer, once = (2 * flops.macs(network, shape) for network in networks)
    row: dict[str, Any] = {"student": recipe.student, "teacher": teacher, "side": recipe.resolution}
    row |= {"images": recipe.batch_size, "dtype": recipe.dtype, "steps": options.steps, "step (ms)": 1e3 * step}
    rate = recipe.batch_size / step
    operations = rate * (answer + 3 * once)  # the gradient is twice the forward pass
    return [row | {"images/s": rate, "TFLOP/s": operations / 1e12}]
