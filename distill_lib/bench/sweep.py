"""What a class saves: eight students that share a teacher's answer, beside eight runs that each ask for themselves."""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_lib.bench import made_up, timing

ONE, TEACHER = "teacher and one student", "teacher alone"
FORMS = ("one program for each student", "unrolled in one program", "vmap")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times a step of a whole class in three forms, beside as many steps of one student.

    Args:
        arguments: `--students K`, `--rounds N`, `--dataset`, `--variant`, `--forms N` (the first so many), `--made-up`.

    Returns:
        A row a form: seconds a step of the class, and the ratio to the students' steps alone.
    """
    parser = timing.parser(measure, rounds=15)
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--dataset", default="fashion")
    parser.add_argument("--variant", default="quick")
    parser.add_argument("--forms", type=int, default=len(FORMS), choices=range(1, len(FORMS) + 1))
    parser.add_argument("--made-up", action="store_true", help="random weights and mock images: no downloads")
    options = parser.parse_args(arguments)
    forms = FORMS[: options.forms]
    with tempfile.TemporaryDirectory() as folder:
        steps = _steps(options, forms, Path(folder))
    seconds = timing.interleaved(steps, rounds=options.rounds)
    alone = seconds[ONE].median
    share = seconds[TEACHER].median / alone
    limit = (share + options.students * (1 - share)) / options.students
    rows: list[tuple] = [(ONE, 1, seconds[ONE], 1.0), (TEACHER, 0, seconds[TEACHER], share)]
    rows += [("teacher once, students as alone", options.students, "", limit)]
    rows += [(form, options.students, seconds[form], seconds[form].median / alone / options.students) for form in forms]
    return [dict(zip(("form", "students", "step", "of as many runs"), row, strict=True)) for row in rows]


def _steps(options: argparse.Namespace, forms: tuple[str, ...], folder: Path) -> dict[str, Callable[[], None]]:
    """A step of the teacher, of one student, and of a class in each form; every call is a whole step, waited for."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from distill_lib import recipes
    from distill_lib.input_pipeline import sampler
    from distill_lib.train import setup, step
    from distill_lib.train import state as train_state
    from distill_lib.train.sources import Images

    preset = recipes.get(options.dataset, options.variant)
    work = setup.prepare(made_up.like(preset, folder) if options.made_up else preset)
    assert work.teacher is not None
    assert work.train is not None
    train, recipe = work.train, work.recipe
    indices = sampler.batch_indices(0, 0, recipe.batch_size, len(train.labels))
    source = Images(train.images, train.labels, indices=indices)
    fixed = jax.device_put((step.view_key(0), np.int32(0), source, work.teacher.variables))
    teach, learn = step.teach(work.plan), step.learn(work.student, work.objective)
    move = learn.__wrapped__  # type: ignore[attr-defined]  # the function inside the jitted one

    def apart(states: Any, settings: Any, lesson: Any, moved: Callable = learn) -> Any:
        return [moved(state, settings, lesson) for state in states]

    unrolled = jax.jit(functools.partial(apart, moved=move), donate_argnums=0)
    mapped = jax.jit(jax.vmap(move, in_axes=(0, None, None)), donate_argnums=0)

    def taught(program: Callable, students: int) -> Callable[[], None]:
        states: Any = [train_state.initial_state(work.student, seed, work.image_shape) for seed in range(students)]
        held = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *states) if program is mapped else states]

        def run() -> None:
            held[0] = jax.block_until_ready(program(held[0], work.settings, teach(*fixed, 1.0)))

        return run

    programs: dict[str, Callable] = dict(zip(FORMS, (apart, unrolled, mapped), strict=True))
    found = {TEACHER: lambda: jax.block_until_ready(teach(*fixed, 1.0)), ONE: taught(apart, 1)}
    return found | {form: taught(programs[form], options.students) for form in forms}
