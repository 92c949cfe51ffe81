"""What a sweep saves: eight students that share a teacher's answer, beside eight runs that each ask for themselves."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.students import Students, made_up_task
from distill_lib import recipes, sharding
from distill_lib.report.benchmarks import Rows
from distill_lib.train.task import Task

SINGLE, TEACHER = "teacher and one student", "teacher alone"
APART, UNROLLED, VMAP = "one program for each student", "unrolled in one program", "vmap"
FORMS = (APART, UNROLLED, VMAP)


def measure(
    rounds: int = 15, students: int = 8, dataset: str = "fashion", variant: str = "quick", forms: int = len(FORMS)
) -> Rows:
    """Times a step of all students at once in three forms, beside as many steps of one student.

    Weights are random and images made up. `--forms` is how many of the forms, from the first one.

    Returns: for each form seconds a step of all students, and the ratio to their steps alone.
    """
    taught = prepare(made_up_task(recipes.get(dataset, variant)), students, FORMS[:forms])
    seconds = timing.interleaved({form: each.run for form, each in taught.items()}, rounds=rounds)
    alone = seconds[SINGLE].median
    share = seconds[TEACHER].median / alone
    limit = (share + students * (1 - share)) / students
    rows = [
        (SINGLE, 1, seconds[SINGLE], 1.0),
        (TEACHER, 0, seconds[TEACHER], share),
        ("teacher once, students as alone", students, "", limit),
        *((form, students, seconds[form], seconds[form].median / alone / students) for form in FORMS[:forms]),
    ]
    return [dict(zip(("form", "students", "step", "of as many runs"), row, strict=True)) for row in rows]


def prepare(task: Task, count: int, forms: Sequence[str]) -> dict[str, Students]:
    """No student, one student, and several in each form; by form."""
    taught = {TEACHER: Students(task, 0), SINGLE: Students(task)} | {form: Students(task, count) for form in forms}
    for form, several in taught.items():
        learn = several.learn.__wrapped__  # the function inside the jitted one
        if form == UNROLLED:
            several.learn, several.move = learn, jax.jit(several.apart, donate_argnums=0)
        if form == VMAP:
            several.move = jax.jit(jax.vmap(learn, in_axes=(0, None, None)), donate_argnums=0)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several.states)
            several.states = jax.device_put(stacked, sharding.everywhere(sharding.data_mesh(1)))
    return taught
