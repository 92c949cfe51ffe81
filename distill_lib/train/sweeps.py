"""A sweep: one rendered view and one teacher's answer teach many students, which may differ in everything but that.

They share data, policy, teacher, resolution, batch, length of the schedule and the seed of order and views. Each is a
run of its own, with its own record and checkpoint, and ends with the numbers it would have alone.
"""

import dataclasses
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from distill_lib import records, sharding
from distill_lib.errors import DistillError, logger, unknown
from distill_lib.recipes import Recipe
from distill_lib.train import processes, step, student, tensorboard
from distill_lib.train.loop import train
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


def fit(recipe: Recipe, workdir: str | os.PathLike[str] | None = None, **options: Any) -> Run:
    """Trains a student, goes on, or reuses the finished run, as `sweep`; DistillError also if the student diverges."""
    (run,) = sweep([recipe], workdir, **options)
    if isinstance(run, Run):
        return run
    raise run


def sweep(
    recipes: Sequence[Recipe],
    workdir: str | os.PathLike[str] | None = None,
    *,
    students_per_step: int | None = None,
    checkpoint_seconds: float = 60.0,
    remat: bool = False,
    resume_changed: bool = False,
    make: Callable[..., Task] = prepare,
    **loading: Any,
) -> list[Run | DistillError]:
    """Trains students, as many together as share their batches and as memory allows, or `students_per_step`.

    Those that are finished are reused. Between two training checkpoints are `checkpoint_seconds`, or more where they
    would take over 1 % of the time. With `remat` activations are computed again in the backward pass rather than kept.
    With `resume_changed` a run goes on that was begun with other code, versions, devices, settings or data. `loading`
    are `loading`, `workers`, `on_bad_image` and `replay` of `setup.prepare`; `workdir` is the results folder. Tasks of
    another kind are those that `make` puts together, which is given a recipe, the tasks before it, and `results`.

    Returns for each recipe its run, or the error that ended it while the others went on. DistillError if data, teacher
    or folder are not usable, or a run was begun otherwise; earlier records stay intact.
    """
    if not recipes:
        raise DistillError("there is nothing to run: name at least one policy, and one value of each setting.")
    if students_per_step is not None and students_per_step < 1:
        raise DistillError(f"students_per_step must be at least 1, got {students_per_step}.")
    processes.start()
    processes.from_first(tensorboard.wanted)
    sharding.use_compilation_cache()
    root = records.find_results(workdir)
    prepared = processes.together(lambda: _prepared(recipes, make, loading | {"results": workdir}))
    folders = [root / task.recipe.study / task.run_id for task in prepared]
    ended: dict[Path, Run | DistillError] = {}
    waiting: dict[Hashable, list[tuple[Task, Path]]] = {}
    for directory, task in dict(zip(folders, prepared, strict=True)).items():
        if (run := processes.from_first(lambda: student.finished(task, directory))) is not None:  # noqa: B023
            ended[directory] = run
        else:
            waiting.setdefault(task.shared_batches, []).append((task, directory))
    for group in waiting.values():
        size = students_per_step or min(processes.exchanged(affordable(group[0][0])))
        for part in (group[start : start + size] for start in range(0, len(group), size)):
            runs = train(part, checkpoint_seconds=checkpoint_seconds, remat=remat, resume_changed=resume_changed)
            ended |= zip((directory for _, directory in part), runs, strict=True)
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

    `axes` are values by field of `Recipe`, such as `learning_rate=[1e-3, 3e-3]`, instead of those of `GRIDS[name]`;
    None or no values keep these. Without a teacher no temperature varies. DistillError for an unknown grid or bad
    value.
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
    """How many students of a task fit into a device's memory at once; activations are needed for one at a time."""
    leaves = jax.tree.leaves(step.state_shapes(task.student, task.image_shape, task.recipe.optimizer))
    return max(1, int(STATE_SHARE * _memory() / sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)))


def _memory() -> int:
    """Bytes of the first device, or of the host if it is a CPU."""
    stats: dict[str, int] = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _prepared(recipes: Sequence[Recipe], make: Callable[..., Task], options: dict[str, Any]) -> list[Task]:
    tasks: list[Task] = []
    for recipe in recipes:
        tasks.append(make(recipe, tasks, **options))
    return tasks
