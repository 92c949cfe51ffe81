"""Lessons of a run, one a step: from images that lie on the device, or from crops that the host makes.

Both yield the same lessons for the same seed and step, to the rounding of crops to uint8, from images that fill their
canvas. Larger ones are shrunk to fit into memory (`canvas_fidelity` measures what that costs) and are cropped whole
otherwise, so the two are different runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import sharding, views
from distill_lib.input_pipeline import sampler, stream
from distill_lib.train import fixed_targets, step
from distill_lib.train.sources import Crops, Images
from distill_lib.train.step import Asked, Lesson
from distill_lib.train.task import Task

LESSONS_AHEAD = 2  # that may wait for students; each holds a batch of images on the device


def most_ahead() -> int:
    """How many lessons the host may run ahead of the device.

    Several CPU devices share one pool of threads: where they run ahead, collectives wait for each other for ever.
    """
    return 0 if jax.default_backend() == "cpu" and jax.device_count() > 1 else LESSONS_AHEAD


class Lessons:
    """An iterator over the lessons of a task, from a step on; it is closed in the end.

    Args:
        task: whose lessons.
        start: steps that are done.
        mesh: all devices, along one axis "data".
    """

    def __init__(self, task: Task, start: int, mesh: Mesh) -> None:
        everywhere = sharding.everywhere(mesh)
        self._task, self._teach = task, step.teach(task.plan)
        self._sources = Decoded(task, start, mesh) if task.source is not None else Resident(task, start, mesh)
        self._asked, self._temperature = _asked(task, mesh), np.float32(task.recipe.temperature)
        self._key = jax.device_put(step.view_key(task.recipe.order_seed), everywhere)

    def __iter__(self) -> Iterator[Lesson]:
        """Endless, from the first step that is not done; DistillError where stored answers are to other views."""
        store = self._task.store
        for number, source in self._sources:
            lesson = self._teach(self._key, np.int32(number), source, self._asked(number), self._temperature)
            if store is not None:
                store.check(number, lesson.shown)
            yield lesson

    @property
    def bad_images(self) -> int | None:
        """How many broken images were met in this process; None where all images were decoded beforehand."""
        return self._sources.bad_images

    def close(self) -> None:
        """Ends the threads that decode."""
        self._sources.close()


class Resident:
    """Images that lie whole on every device; a batch is an index."""

    bad_images = None

    def __init__(self, task: Task, start: int, mesh: Mesh) -> None:
        self._task, self._start, self._split = task, start, sharding.split(mesh)
        train = task.train
        assert train is not None
        images = Images(train.images, task.targets(), train.extents)
        self._images = jax.device_put(images, sharding.everywhere(mesh))

    def __iter__(self) -> Iterator[tuple[int, Images]]:
        """The step's number and its images, endless."""
        recipe = self._task.recipe
        batches = sampler.batches(
            self._task.examples, seed=recipe.order_seed, batch_size=recipe.batch_size, start_step=self._start
        )
        for number, indices in enumerate(batches, self._start):
            yield number, self._images._replace(indices=jax.device_put(indices, self._split))

    def close(self) -> None:
        """Nothing runs beside."""


class Decoded:
    """Crops that the host decodes; each host makes its share of a batch."""

    def __init__(self, task: Task, start: int, mesh: Mesh) -> None:
        assert task.source is not None
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
        self._split = sharding.split(mesh)

    def __iter__(self) -> Iterator[tuple[int, Crops]]:
        """The step's number and its crops, endless."""
        for batch in self._batches:
            targets = batch.labels if self._fixed is None else self._fixed[batch.labels]
            crops = Crops(batch.student, batch.teacher, targets)
            yield (
                batch.step,
                jax.tree.map(lambda share: jax.make_array_from_process_local_data(self._split, share), crops),
            )

    @property
    def bad_images(self) -> int:
        """How many broken images were met in this process."""
        return len(self._batches.bad)

    def close(self) -> None:
        """Ends the threads that decode."""
        self._batches.close()


def _asked(task: Task, mesh: Mesh) -> Callable[[int], Asked]:
    """What the teacher's logits are computed from in a step: its variables, or its stored answers."""
    if (store := task.store) is not None:
        split = sharding.split(mesh)
        return lambda number: jax.device_put(store.read(number), split)
    variables = task.teacher.variables if task.teacher is not None and task.asks_teacher else ()
    everywhere = jax.device_put(variables, sharding.everywhere(mesh))
    return lambda number: everywhere
