"""What a step costs with each optimiser: one student, with the views and the teacher that all of them have."""

from dataclasses import replace

from benchmarks import timing
from benchmarks.students import Students
from distill_lib import optim, recipes
from distill_lib.report.benchmarks import Rows
from distill_lib.train import setup

FIRST = "adam"


def measure(rounds: int = 15, steps: int = 20, dataset: str = "fashion", variant: str = "compare") -> Rows:
    """Times steps of consistent teaching with each optimiser, in turn.

    Returns:
        A row an optimiser: seconds a step, and how many times as long as Adam's.
    """
    task = setup.prepare(recipes.get(dataset, variant, policy="same/ic"))
    names = [FIRST, *(name for name in optim.OPTIMIZERS if name != FIRST)]
    taught = {name: Students(replace(task, recipe=replace(task.recipe, optimizer=name))) for name in names}
    functions = {name: lambda each=each: each.run(steps) for name, each in taught.items()}
    seconds = timing.interleaved(functions, rounds=rounds, steps=steps)
    return [
        {"optimizer": name, "step": step, "times as long": step.median / seconds[FIRST].median}
        for name, step in seconds.items()
    ]
