"""Lessons of a run, one a step: from images that lie on the device, or from crops that the host makes.

Both yield the same lessons for the same seed and step, to the rounding of crops to uint8, from images that fill their
canvas. Larger ones are shrunk to fit into memory (`canvas_fidelity` measures what that costs) and are cropped whole
otherwise, so the two are different runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from distill_lib import sharding, views
from distill_lib.input_pipeline import sampler, stream
from distill_lib.train import fixed_targets, step
from distill_lib.train.step import Asked, Lesson
from distill_lib.train.task import Task

LESSONS_AHEAD = 2  # that may wait for students; each holds a batch of images on the device


class Lessons(Protocol):
    """An iterator over lessons that knows which images were broken, and is closed in the end."""

    @property
    def bad_images(self) -> int | None:
        """How many broken images were met; None where all images were decoded beforehand."""

    def __iter__(self) -> Iterator[Lesson]: ...

    def close(self) -> None:
        """Ends the threads that decode."""


def most_ahead() -> int:
    """How many lessons the host may run ahead of the device.

    Several CPU devices share one pool of threads: where they run ahead, collectives wait for each other for ever.
    """
    return 0 if jax.default_backend() == "cpu" and jax.device_count() > 1 else LESSONS_AHEAD


def open_lessons(task: Task, start: int, mesh: jax.sharding.Mesh) -> Lessons:
    """Lessons of a task from a step on.

    Args:
        task: whose lessons.
        start: steps that are done.
        mesh: all devices, along one axis "data".
    """
    return Streamed(task, start, mesh) if task.source is not None else Resident(task, start, mesh)


class Resident:
    """Lessons from images that lie whole on every device; a batch is an index."""

    bad_images = None

    def __init__(self, task: Task, start: int, mesh: jax.sharding.Mesh) -> None:
        self._task, self._start = task, start
        self._teach, self._split = step.teach(task.plan), sharding.split(mesh)
        train = task.train
        assert train is not None
        material = step.Material(train.images, task.targets(), train.extents)
        self._asked, self._temperature = _asked(task, mesh), np.float32(task.recipe.temperature)
        self._key, self._material = jax.device_put(
            (step.view_key(task.recipe.order_seed), material), sharding.everywhere(mesh)
        )

    def __iter__(self) -> Iterator[Lesson]:
        """Endless, from the first step that is not done."""
        recipe = self._task.recipe
        batches = sampler.batches(
            self._task.examples, seed=recipe.order_seed, batch_size=recipe.batch_size, start_step=self._start
        )
        for number, indices in enumerate(batches, self._start):
            chosen, asked = jax.device_put(indices, self._split), self._asked(number)
            lesson = self._teach(self._key, np.int32(number), self._material, chosen, asked, self._temperature)
            yield _checked(self._task, number, lesson)

    def close(self) -> None:
        """Nothing runs beside."""


class Streamed:
    """Lessons from crops that the host decodes; each host makes its share of a batch."""

    def __init__(self, task: Task, start: int, mesh: jax.sharding.Mesh) -> None:
        assert task.source is not None
        self._task = task
        recipe, members = task.recipe, task.plan.teacher.members if task.plan.teacher else ()
        sizes = {member.resolution or recipe.resolution for member in members}
        relation = views.policy(recipe.policy).relation
        if relation != "independent":
            sizes.discard(recipe.resolution)  # the student's crop is the teacher's
        self._fixed = task.targets() if relation == "fixed" else None
        self._batches = stream.batches(
            task.source if self._fixed is None else fixed_targets.Numbered(task.source),
            seed=recipe.order_seed,
            batch_size=recipe.batch_size,
            student_size=recipe.resolution,
            teacher_sizes=tuple(sorted(sizes)),
            start_step=start,
            policy=recipe.policy,
            area=recipe.crop_area,
            whole=recipe.whole,
            channels=task.image_shape[2],
            host=jax.process_index(),
            hosts=jax.process_count(),
            workers=task.workers,
            on_bad_image=task.on_bad_image,
        )
        self._teach, self._split = step.teach_crops(task.plan), sharding.split(mesh)
        self._asked, self._temperature = _asked(task, mesh), np.float32(recipe.temperature)
        self._key = jax.device_put(step.view_key(recipe.order_seed), sharding.everywhere(mesh))

    def __iter__(self) -> Iterator[Lesson]:
        """Endless, from the first step that is not done."""
        for batch in self._batches:
            targets = batch.labels if self._fixed is None else self._fixed[batch.labels]
            crops = step.Crops(batch.student, batch.teacher, targets)
            shared: Any = jax.tree.map(lambda share: jax.make_array_from_process_local_data(self._split, share), crops)
            asked = self._asked(batch.step)
            lesson = self._teach(self._key, np.int32(batch.step), shared, asked, self._temperature)
            yield _checked(self._task, batch.step, lesson)

    @property
    def bad_images(self) -> int:
        """How many broken images were met in this process."""
        return len(self._batches.bad)

    def close(self) -> None:
        """Ends the threads that decode."""
        self._batches.close()


def _asked(task: Task, mesh: jax.sharding.Mesh) -> Callable[[int], Asked]:
    """What the teacher's logits are computed from in a step: its variables, or its stored answers."""
    if (store := task.store) is not None:
        split = sharding.split(mesh)
        return lambda number: jax.device_put(store.read(number), split)
    variables = task.teacher.variables if task.teacher is not None and task.asks_teacher else ()
    everywhere = jax.device_put(variables, sharding.everywhere(mesh))
    return lambda number: everywhere


def _checked(task: Task, number: int, lesson: Lesson) -> Lesson:
    """The lesson; raises DistillError where stored answers are to other views."""
    if task.store is not None:
        task.store.check(number, lesson.shown)
    return lesson
