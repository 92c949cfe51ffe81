"""Students of a task that learn from the same lessons, a step at a time, for the benchmarks that time whole steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from distill_lib import sharding
from distill_lib.train import batches, step
from distill_lib.train import state as train_state
from distill_lib.train.task import Task


class Students:
    """Students with the seeds 0, 1, ... and lessons as the training loop has them.

    Attributes:
        states: of the students, after the newest step.
        lesson: of the newest step.
        learn: the jitted second half of a step, of one student.
        move: from all states, settings and a lesson to the next states; by default a call of `learn` for each.
    """

    def __init__(self, task: Task, students: int = 1, *, remat: bool = False) -> None:
        self.task, mesh = task, sharding.data_mesh(1)
        self.lesson: Any = None
        self._lessons = iter(batches.Lessons(task, 0, mesh))
        self._settings = jax.device_put(task.settings, sharding.everywhere(mesh))
        # Laid out as each step leaves them: the second step would be compiled again otherwise.
        optimizer, drawn = task.recipe.optimizer, functools.partial(train_state.initial_state, task.student)
        self.states: Any = [
            train_state.spread(drawn(seed, task.image_shape, optimizer=optimizer), optimizer, mesh)
            for seed in range(students)
        ]
        self.learn: Any = step.learn(task.student, task.objective, remat, mesh)
        self.move: Callable[..., Any] = self.apart

    def apart(self, states: list, settings: Any, lesson: Any) -> list:
        """One call of the compiled program for each student."""
        return [self.learn(state, settings, lesson) for state in states]

    def run(self, steps: int = 1) -> None:
        """So many steps of all students, waited for."""
        for _ in range(steps):
            self.lesson = next(self._lessons)
            self.states = self.move(self.states, self._settings, self.lesson)
        jax.block_until_ready((self.states, self.lesson))
