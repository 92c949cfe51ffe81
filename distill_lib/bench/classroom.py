"""What a class saves: eight students that share a teacher's answer, beside eight runs that each ask for themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from distill_lib.bench import timing

FORMS = ("one program for each student", "unrolled in one program", "vmap")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times a step of a whole class in three forms, beside as many steps of one student.

    Args:
        arguments: `--students K`, `--rounds N`, `--dataset`, `--variant`, `--forms N` (the first so many).

    Returns:
        A row a form: seconds a step of the class, and the ratio to the students' steps alone.
    """
    parser = argparse.ArgumentParser(prog="python -m distill_lib.bench classroom", description=measure.__doc__)
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dataset", default="fashion")
    parser.add_argument("--variant", default="quick")
    parser.add_argument("--forms", type=int, default=len(FORMS), choices=range(1, len(FORMS) + 1))
    options = parser.parse_args(arguments)
    steps = _steps(options.dataset, options.variant, options.students, FORMS[: options.forms])
    seconds = timing.interleaved(steps, rounds=options.rounds)
    alone = seconds["teacher and one student"].median
    share = seconds["teacher alone"].median / alone
    limit = (share + options.students * (1 - share)) / options.students
    rows = [
        {
            "form": form,
            "students": options.students,
            "step": seconds[form],
            "of as many runs": _share(seconds, form, options),
        }
        for form in FORMS[: options.forms]
    ]
    single = [
        {"form": name, "students": students, "step": seconds[name], "of as many runs": ratio}
        for name, students, ratio in (("teacher and one student", 1, 1.0), ("teacher alone", 0, share))
    ]
    least = {
        "form": "teacher once, students as alone",
        "students": options.students,
        "step": "",
        "of as many runs": limit,
    }
    return [*single, least, *rows]


def _share(seconds: dict[str, timing.Timing], form: str, options: argparse.Namespace) -> float:
    return seconds[form].median / (options.students * seconds["teacher and one student"].median)


def _steps(dataset: str, variant: str, students: int, forms: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
    """A step of the teacher, of one student, and of a class in each form; every call is a whole step, waited for."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from distill_lib import assembly, learning, loader, recipes, step

    work = assembly.prepare(recipes.get(dataset, variant))
    assert work.teacher is not None
    assert work.train is not None
    train, recipe = work.train, work.recipe
    indices = loader.batch_indices(0, 0, recipe.batch_size, len(train.labels))
    material = step.Material(train.images, train.labels)
    fixed = jax.device_put((step.view_key(0), np.int32(0), material, indices, work.teacher.variables))
    teach, learn = step.teach(work.plan), learning.learn(work.student)
    move = learn.__wrapped__  # type: ignore[attr-defined]  # the function inside the jitted one
    unrolled = jax.jit(
        lambda states, lesson: [move(state, work.settings, lesson) for state in states], donate_argnums=0
    )
    mapped = jax.jit(jax.vmap(move, in_axes=(0, None, None)), donate_argnums=0)
    states = {
        form: [learning.initial_state(work.student, seed, work.image_shape) for seed in range(students)]
        for form in forms
    }
    if FORMS[2] in forms:
        states[FORMS[2]] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states[FORMS[2]])
    single = [learning.initial_state(work.student, 0, work.image_shape)]

    def one() -> None:
        single[0] = jax.block_until_ready(learn(single[0], work.settings, teach(*fixed, 1.0)))

    def each() -> None:
        lesson = teach(*fixed, 1.0)
        states[FORMS[0]] = jax.block_until_ready([learn(state, work.settings, lesson) for state in states[FORMS[0]]])

    def together(form: str, program: Callable) -> Callable[[], None]:
        def run() -> None:
            states[form] = jax.block_until_ready(program(states[form], teach(*fixed, 1.0)))

        return run

    found: dict[str, Callable[[], Any]] = {
        "teacher alone": lambda: jax.block_until_ready(teach(*fixed, 1.0)),
        "teacher and one student": one,
        FORMS[0]: each,
        FORMS[1]: together(FORMS[1], unrolled),
        FORMS[2]: together(FORMS[2], lambda states, lesson: mapped(states, work.settings, lesson)),
    }
    return {name: function for name, function in found.items() if name not in FORMS or name in forms}
