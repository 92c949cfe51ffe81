"""What a sweep saves: eight students that share a teacher's answer, beside eight runs that each ask for themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from distill_lib import recipes, sharding
from distill_lib.bench import timing
from distill_lib.bench.students import Students, made_up
from distill_lib.recipes import Recipe
from distill_lib.train import setup

ONE, TEACHER = "teacher and one student", "teacher alone"
APART, UNROLLED, VMAP = "one program for each student", "unrolled in one program", "vmap"
FORMS = (APART, UNROLLED, VMAP)


def measure(
    rounds: int = 15,
    students: int = 8,
    dataset: str = "fashion",
    variant: str = "quick",
    forms: int = len(FORMS),
    made_up: bool = False,
) -> list[dict[str, Any]]:
    """Times a step of a whole class in three forms, beside as many steps of one student.

    `--forms` is how many of the forms, from the first one; `--made-up` takes random weights and mock images, so that
    nothing is downloaded.

    Returns:
        A row a form: seconds a step of the class, and the ratio to the students' steps alone.
    """
    classes = prepare(recipes.get(dataset, variant), students, FORMS[:forms], without_data=made_up)
    seconds = timing.interleaved({form: taught.run for form, taught in classes.items()}, rounds=rounds)
    alone = seconds[ONE].median
    share = seconds[TEACHER].median / alone
    limit = (share + students * (1 - share)) / students
    rows: list[tuple[Any, ...]] = [(ONE, 1, seconds[ONE], 1.0), (TEACHER, 0, seconds[TEACHER], share)]
    rows.append(("teacher once, students as alone", students, "", limit))
    rows += [(form, students, seconds[form], seconds[form].median / alone / students) for form in FORMS[:forms]]
    return [dict(zip(("form", "students", "step", "of as many runs"), row, strict=True)) for row in rows]


def prepare(recipe: Recipe, students: int, forms: Sequence[str], *, without_data: bool) -> dict[str, Students]:
    """No student, one student, and several in each form; by form."""
    with tempfile.TemporaryDirectory() as folder:
        task = setup.prepare(made_up(recipe, Path(folder)) if without_data else recipe)
    classes = {TEACHER: Students(task, 0), ONE: Students(task)}
    for form in forms:
        taught = classes[form] = Students(task, students)
        learn = taught.learn.__wrapped__  # the function inside the jitted one
        if form == UNROLLED:
            taught.learn, taught.move = learn, jax.jit(taught.apart, donate_argnums=0)
        if form == VMAP:
            taught.move = jax.jit(jax.vmap(learn, in_axes=(0, None, None)), donate_argnums=0)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *taught.states)
            taught.states = jax.device_put(stacked, sharding.everywhere(sharding.data_mesh(1)))
    return classes
