"""Presets with random weights and made-up images: the speed is theirs, and what students learn means nothing."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_lib import datasets, models, recipes, sharding, teachers, views
from distill_lib.recipes import Recipe
from distill_lib.train import setup, step
from distill_lib.train.task import Task
from distill_lib.views import Pixels
from distill_lib.weights import flatten, save_npz, unflatten

BATCHES = 2  # of mock images
SAME = ("policy", "student", "batch_size", "resolution", "temperature", "learning_rate", "weight_decay", "dtype")


def made_up(recipe: Recipe, folder: Path, *, steps: int = 2 * BATCHES, **changes: Any) -> Recipe:
    """The same networks, sizes and dtype on mock images, for so many steps; the teacher's file is written."""
    settings = {field: getattr(recipe, field) for field in SAME} | {"evaluations": 1, "epochs": steps / BATCHES}
    settings |= {"train_images": BATCHES * recipe.batch_size}
    if recipe.has_teacher:
        model, _ = teachers.network(recipe.teacher.partition("@")[0])
        settings["teacher"] = str(drawn(recipe, model, folder / "teacher.npz"))
    return recipes.get(recipe.dataset, "smoke", **(settings | changes))


def made_up_task(recipe: Recipe, **changes: Any) -> Task:
    """What `made_up` gives, ready to be trained."""
    with tempfile.TemporaryDirectory() as folder:
        return setup.prepare(made_up(recipe, Path(folder), **changes))


def drawn(recipe: Recipe, name: str, path: Path) -> Path:
    """Writes random weights of a model: scales of 1, biases of 0, kernels that keep the size of what passes through."""
    draw, dataset = np.random.default_rng(0), datasets.get(recipe.dataset)
    shape = (recipe.resolution, recipe.resolution, dataset.channels)

    def leaf(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if not name.endswith("kernel"):
            return np.full(shape, float(name.endswith("scale")), np.float32)
        return draw.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))

    shapes = flatten(models.shapes(models.create(name, dataset.num_classes), shape)["params"])
    tree = unflatten({name: leaf(name, about.shape) for name, about in shapes.items()})
    save_npz(path, tree, {"model": name}, compressed=False)
    return path


class Students:
    """Students with the seeds 0, 1, ... that learn from the same batches, as the training loop has them.

    `learn` is the jitted second half of a step of one student; `move` makes the next of all states: one by one, if so.
    """

    def __init__(self, task: Task, students: int = 1, given: Iterator[Any] | None = None) -> None:
        mesh = sharding.data_mesh(1)
        self._batches = given or task.batches(0, mesh)
        self._settings = jax.device_put(task.settings, sharding.everywhere(mesh))
        seeded = [replace(task, recipe=replace(task.recipe, seed=seed)) for seed in range(students)]
        # Laid out as each step leaves them: the second step would be compiled again otherwise.
        self.states: Any = [jax.device_put(each.initial_state(), sharding.everywhere(mesh)) for each in seeded]
        self.learn: Any = step.learn(task.student, task.recipe, mesh=mesh)
        self.move: Callable[..., Any] = self.apart

    def apart(self, states: list[Any], settings: Any, batch: Any) -> list[Any]:
        """One call of the compiled program for each student."""
        return [self.learn(state, settings, batch) for state in states]

    def run(self, steps: int = 1) -> None:
        """So many steps of all students, waited for."""
        ahead: deque[Any] = deque()
        for _ in range(steps):
            ahead.append(next(self._batches))
            self.states = self.move(self.states, self._settings, ahead[-1])
            if len(ahead) > sharding.BATCHES_AHEAD:  # as the loop does: a device that is sent all at once is slower
                jax.block_until_ready(ahead.popleft())
        jax.block_until_ready((self.states, *ahead))


def batches_of(task: Task, sources: Iterable[Pixels]) -> Iterator[step.Batch]:
    """Batches of a task from given pixels; all that they need besides is on the device."""
    teacher, variables = task.asked
    teach = step.teach(task.recipe, teacher, task.num_classes)
    numbers = (np.int32(0), np.float32(task.recipe.temperature))
    key, number, temperature, variables = jax.device_put((views.view_key(0), *numbers, variables))
    return (teach(key, number, source, variables, temperature) for source in sources)
