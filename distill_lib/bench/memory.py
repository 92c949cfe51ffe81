"""Peak memory of training against class size and batch size, with and without rematerialisation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from distill_lib.bench import timing
from distill_lib.errors import DistillError

STEPS = 3
EMBEDDED = {"dataset": "fashion", "variant": "quick", "student": "bit_r11w8", "resolution": 28}
LARGE = {"dataset": "flowers", "variant": "smoke", "policy": "labels", "student": "bit_r50x1", "resolution": 128}
CASES = (  # axis, settings, batch sizes, class sizes, whether activations are computed again
    ("class size", EMBEDDED, (128,), (1, 32, 128), (False,)),
    ("class size", LARGE, (8,), (1, 2, 4), (False,)),
    ("batch size", EMBEDDED, (128, 512), (1,), (False, True)),
    ("batch size", LARGE, (8, 32), (1,), (False, True)),
)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Runs some steps of each case in a process of its own.

    Args:
        arguments: `--cases N` (the first so many).

    Returns:
        A row a case. "peak (MB)" is that of the device where it reports one, else of the whole process; "program (MB)"
        is the working memory that the compiled student's program asks for; "kept (MB)" is what a forward pass keeps for
        the gradient, and "state (MB)" parameters and optimiser of one student.
    """
    parser = timing.parser(measure)
    parser.add_argument("--cases", type=int, default=len(CASES), choices=range(1, len(CASES) + 1))
    options = parser.parse_args(arguments)
    return [
        {"axis": axis, "student": settings["student"], "pixels": settings["resolution"]} | _asked(settings | changes)
        for axis, settings, batches, classes, remats in CASES[: options.cases]
        for batch in batches
        for students in classes
        for remat in remats
        for changes in [{"batch_size": batch, "students": students, "remat": remat}]
    ]


def child(given: dict[str, Any]) -> dict[str, Any]:
    """Teaches a class for some steps, and says what memory that took: run it in a process of its own.

    Args:
        given: "dataset", "variant", "students", "remat", and settings of the recipe.
    """
    import jax

    from distill_lib import recipes, records, sharding
    from distill_lib.models import flops
    from distill_lib.train import setup, step
    from distill_lib.train import state as train_state
    from distill_lib.train.batches import Lessons

    given = dict(given)
    dataset, variant, students, remat = (given.pop(name) for name in ("dataset", "variant", "students", "remat"))
    work = setup.prepare(recipes.get(dataset, variant, **given))
    mesh = sharding.data_mesh(1)
    states = [train_state.initial_state(work.student, seed, work.image_shape) for seed in range(students)]
    learn = step.learn(work.student, work.objective, remat)
    opened = Lessons(work, 0, mesh)
    for _, lesson in zip(range(STEPS), opened, strict=False):
        for number, state in enumerate(states):
            states[number] = jax.block_until_ready(learn(state, work.settings, lesson))
    peak = records.environment()["peak_memory_mb"]
    analysis = learn.lower(states[0], work.settings, lesson).compile().memory_analysis()  # type: ignore[attr-defined]
    kept = flops.kept_bytes(work.student, work.image_shape, work.recipe.batch_size, remat=remat)
    return {
        "batch": work.recipe.batch_size,
        "students": students,
        "remat": remat,
        "peak (MB)": peak,
        "program (MB)": round(analysis.temp_size_in_bytes / 2**20, 1) if analysis else None,
        "kept (MB)": round(kept / 2**20, 1),
        "state (MB)": round(train_state.state_bytes(work.student, work.image_shape) / 2**20, 3),
    }


_CHILD = """
import json, sys
from distill_lib.bench import memory
print(json.dumps(memory.child(json.loads(sys.argv[1]))))
"""


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    # Settings that keep freed memory would be what peaks tell of. One that changes nothing holds off the library's own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["MALLOC_PERTURB_"] = "0"
    command = [sys.executable, "-c", _CHILD, json.dumps(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DistillError(f"a process stopped: {(done.stderr.strip() or 'no memory').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
