"""What a class saves: eight students that share a teacher's answer, beside eight runs that each ask for themselves."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.bench import timing

if TYPE_CHECKING:
    from distill_lib.bench.students import Students

ONE, TEACHER = "teacher and one student", "teacher alone"
FORMS = ("one program for each student", "unrolled in one program", "vmap")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times a step of a whole class in three forms, beside as many steps of one student.

    `--forms` is how many of the forms, from the first one; `--made-up` takes random weights and mock images, so that
    nothing is downloaded.

    Returns:
        A row a form: seconds a step of the class, and the ratio to the students' steps alone.
    """
    defaults = {"students": 8, "dataset": "fashion", "variant": "quick", "forms": len(FORMS), "made_up": False}
    options = timing.options(measure, arguments, rounds=15, **defaults)
    forms = FORMS[: options.forms]
    with tempfile.TemporaryDirectory() as folder:
        classes = _classes(options, forms, Path(folder))
    seconds = timing.interleaved({name: taught.run for name, taught in classes.items()}, rounds=options.rounds)
    alone = seconds[ONE].median
    share = seconds[TEACHER].median / alone
    limit = (share + options.students * (1 - share)) / options.students
    rows: list[tuple] = [(ONE, 1, seconds[ONE], 1.0), (TEACHER, 0, seconds[TEACHER], share)]
    rows += [("teacher once, students as alone", options.students, "", limit)]
    rows += [(form, options.students, seconds[form], seconds[form].median / alone / options.students) for form in forms]
    return [dict(zip(("form", "students", "step", "of as many runs"), row, strict=True)) for row in rows]


def _classes(options: argparse.Namespace, forms: tuple[str, ...], folder: Path) -> dict[str, Students]:
    """No student, one student, and a class in each form."""
    import jax
    import jax.numpy as jnp

    from distill_lib import recipes, sharding
    from distill_lib.bench import made_up
    from distill_lib.bench.students import Students
    from distill_lib.train import setup

    preset = recipes.get(options.dataset, options.variant)
    work = setup.prepare(made_up.like(preset, folder) if options.made_up else preset)
    classes = {TEACHER: Students(work, 0), ONE: Students(work)}
    for form in forms:
        taught = classes[form] = Students(work, options.students)
        learn = taught.learn.__wrapped__  # the function inside the jitted one
        if form == "unrolled in one program":
            taught.learn, taught.move = learn, jax.jit(taught.apart, donate_argnums=0)
        if form == "vmap":
            taught.move = jax.jit(jax.vmap(learn, in_axes=(0, None, None)), donate_argnums=0)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *taught.states)
            taught.states = jax.device_put(stacked, sharding.everywhere(sharding.data_mesh(1)))
    return classes
