"""Peak memory of training against class size and batch size, with and without rematerialisation."""

from __future__ import annotations

import os
from typing import Any

from distill_lib.bench import process, timing

STEPS = 3
EMBEDDED = {"dataset": "fashion", "variant": "quick", "student": "bit_r11w8", "resolution": 28}
LARGE = {"dataset": "flowers", "variant": "smoke", "policy": "labels", "student": "bit_r50x1", "resolution": 128}
CASES = (  # axis, settings, batch sizes, class sizes, whether activations are computed again
    ("class size", EMBEDDED, (128,), (1, 32, 128), (False,)),
    ("class size", LARGE, (8,), (1, 2, 4), (False,)),
    ("batch size", EMBEDDED, (128, 512), (1,), (False, True)),
    ("batch size", LARGE, (8, 32), (1,), (False, True)),
)
_CHILD = """
import json, sys
from distill_lib.bench import memory
print(json.dumps(memory.child(*json.loads(sys.argv[1]))))
"""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Runs some steps of each case, or of the first `--cases`, in a process of its own.

    Returns:
        A row a case. "peak (MB)" is that of the device where it reports one, else of the whole process; "program (MB)"
        is the working memory that the compiled student's program asks for; "kept (MB)" is what a forward pass keeps for
        the gradient, and "state (MB)" parameters and optimiser of one student.
    """
    options = timing.options(measure, arguments, cases=len(CASES))
    # Settings that keep freed memory would be what peaks tell of. One that changes nothing holds off the library's own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["MALLOC_PERTURB_"] = "0"
    return [
        {"axis": axis, "student": settings["student"], "pixels": settings["resolution"]}
        | process.answer(_CHILD, [settings | {"batch_size": batch}, students, remat], environment)
        for axis, settings, batches, classes, remats in CASES[: options.cases]
        for batch in batches
        for students in classes
        for remat in remats
    ]


def child(settings: dict[str, Any], students: int, remat: bool) -> dict[str, Any]:
    """Teaches a class for some steps, and says what memory that took: run it in a process of its own."""
    from distill_lib import recipes, records
    from distill_lib.bench.students import Students
    from distill_lib.models import flops
    from distill_lib.train import setup
    from distill_lib.train import state as train_state

    work = setup.prepare(recipes.get(**settings))
    taught = Students(work, students, remat=remat)
    for _ in range(STEPS):
        taught.run()
    peak = records.environment()["peak_memory_mb"]
    analysis = taught.learn.lower(taught.states[0], work.settings, taught.lesson).compile().memory_analysis()
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
