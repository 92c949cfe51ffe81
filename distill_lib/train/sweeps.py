"""A sweep: one rendered view and one teacher's answer teach many students, which may differ in everything but that.

Students that are taught together share data, policy, teacher, resolution, batch, length of the schedule and the seed of
order and views. They may differ in learning rate, weight decay, temperature, initialisation and architecture. Each is a
run of its own: it has its own record, goes on from its own checkpoint, and ends with the numbers it would have alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from distill_lib import sharding
from distill_lib.errors import DistillError, unknown
from distill_lib.log import logger
from distill_lib.recipes import Recipe
from distill_lib.train import processes, state, student
from distill_lib.train.loop import folder, train
from distill_lib.train.setup import prepare
from distill_lib.train.student import Run
from distill_lib.train.task import Task

GRIDS: dict[str, dict[str, Sequence[float]]] = {
    "paper": {  # the sweep behind table 4 of Beyer et al., CVPR 2022
        "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
        "weight_decay": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
        "temperature": (1, 2, 5, 10),
    },
    "small": {  # around the embedded study's settings
        "learning_rate": (1e-2, 3e-2, 1e-1),
        "weight_decay": (1e-5, 1e-4, 1e-3),
        "temperature": (1, 2, 5),
    },
    "single": {},  # the recipe's own settings, for students that differ in their seeds alone
}
"""Values of the settings that are chosen on validation images, by name."""
STATE_SHARE = 0.5  # of a device's memory that the states of students may take; the rest is for one step at work


def sweep(
    recipes: Sequence[Recipe],
    workdir: str | os.PathLike[str] | None = None,
    *,
    students_per_step: int | None = None,
    checkpoint_seconds: float = 60.0,
    loading: str = "auto",
    workers: int | None = None,
    replay: str | os.PathLike[str] | None = None,
    remat: bool = False,
    resume_changed: bool = False,
) -> list[Run | DistillError]:
    """Trains students, as many together as share their batches and as memory allows.

    Args:
        recipes: what to run; finished ones are reused, and those that can share batches do.
        workdir: the results folder; None finds it.
        students_per_step: students that are taught together at most; None chooses it from the device's memory.
        checkpoint_seconds: as in `fit`, and so are all others; of `replay` all students take their soft labels.
        loading: how images come.
        workers: threads that decode.
        replay: folder of soft labels.
        remat: less memory, more work.
        resume_changed: whether what was begun otherwise goes on.

    Returns:
        For each recipe its run (without the student's variables, which lie beside its record), or the error that ended
        it (a loss or logits that are not finite) while the others went on.

    Raises:
        DistillError: if data, teacher or folder are not usable. Earlier records stay intact.
    """
    if not recipes:
        raise DistillError("there is nothing to run: name at least one policy, and one value of each setting.")
    if students_per_step is not None and students_per_step < 1:
        raise DistillError(f"students_per_step must be at least 1, got {students_per_step}.")
    processes.start()
    sharding.use_compilation_cache()
    options: dict[str, Any] = {"loading": loading, "workers": workers, "replay": replay, "results": workdir}
    tasks = processes.together(lambda: _prepared(recipes, options))
    folders = [folder(task, workdir) for task in tasks]
    ended: dict[Path, Run | DistillError] = {}
    waiting: dict[Hashable, dict[Path, Task]] = {}
    for task, directory in zip(tasks, folders, strict=True):
        if directory in ended:
            continue
        if (run := processes.from_first(lambda: student.finished(task, directory))) is not None:  # noqa: B023
            ended[directory] = _light(run)
        else:
            waiting.setdefault(task.shared_batches, {})[directory] = task
    for group in waiting.values():
        size = students_per_step or min(processes.exchanged(affordable(next(iter(group.values())))))
        for part in _parts(list(group.items()), size):
            taught = [(task, directory) for directory, task in part]
            runs = train(taught, checkpoint_seconds=checkpoint_seconds, remat=remat, resume_changed=resume_changed)
            ended |= {directory: _light(run) for (directory, _), run in zip(part, runs, strict=True)}
    return [ended[directory] for directory in folders]


def finished(ended: Sequence[Run | DistillError]) -> list[Run]:
    """The runs that came to the end; says how many did not, and raises the first error where none did."""
    runs = [run for run in ended if isinstance(run, Run)]
    errors = [error for error in ended if isinstance(error, DistillError)]
    if errors and not runs:
        raise errors[0]
    for error in errors:
        logger.info("%s", error)
    logger.info("%d of %d students came to the end.", len(runs), len(ended))
    return runs


def grid(recipe: Recipe, name: str | None = None, **axes: Iterable[Any] | None) -> list[Recipe]:
    """All combinations of settings around a recipe, the last axis fastest; the views are those of the recipe's seed.

    Args:
        recipe: what all of them share. Without a teacher there is no temperature to vary.
        name: a key of `GRIDS`; None for the given axes alone.
        **axes: values by field of `Recipe`, such as `learning_rate=[1e-3, 3e-3]`, instead of the named grid's; None or
            no values keep the grid's.

    Raises:
        DistillError: if the grid is unknown, or a value makes no sense.
    """
    if name is not None and name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    named: dict[str, Iterable[Any]] = dict(GRIDS[name]) if name else {}
    chosen = named | {field: values for field, values in axes.items() if values}
    if not recipe.has_teacher:
        chosen.pop("temperature", None)
    recipes = [recipe]
    for field, values in chosen.items():
        recipes = [dataclasses.replace(each, **{field: value}) for each in recipes for value in values]
    if "seed" in chosen:
        recipes = [dataclasses.replace(each, view_seed=recipe.order_seed) for each in recipes]
    return recipes


def affordable(task: Task) -> int:
    """How many students of a task fit into a device's memory at once.

    Students learn one after the other, so activations are needed for one at a time; what grows with their number is
    parameters and optimiser state.
    """
    of_each = state.state_bytes(task.student, task.image_shape, task.recipe.optimizer)
    return max(1, int(STATE_SHARE * _memory() / of_each))


def _memory() -> int:
    """Bytes of the first device, or of the host if it is a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _prepared(recipes: Sequence[Recipe], options: dict[str, Any]) -> list[Task]:
    tasks: list[Task] = []
    for recipe in recipes:
        taught = [task for task in tasks if task.teacher is not None]  # so that a teacher is loaded once
        like = taught[-1:] or tasks[-1:]
        tasks.append(prepare(recipe, like=like[0] if like else None, **options))
    return tasks


def _light(run: Run | DistillError) -> Run | DistillError:
    """A run without its student: hundreds of them would not fit into memory."""
    return dataclasses.replace(run, variables={}) if isinstance(run, Run) else run


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
