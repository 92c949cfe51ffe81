"""What training costs beside its compiled steps: the loop around them, and the way to the first step."""

import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import process, timing
from benchmarks.students import Students, batches_of, made_up_task
from distill_lib import recipes, sharding
from distill_lib.report.benchmarks import Rows
from distill_lib.train import loop, setup
from distill_lib.train.task import Task

FEW = 20  # steps of a run that is subtracted
RATE = 1e-4  # at which a teacher of nonsense makes nothing diverge
GOAL_STEP = 0.05  # seconds; the overhead is told as a share of a step of this length too


def measure(
    rounds: int = 7,
    steps: int = 400,
    batches: Sequence[int] = [8, 128],
    starts: int = 3,
    dataset: str = "fashion",
    variant: str = "quick",
) -> Rows:
    """Times the training loop beside its compiled calls, with random weights on made-up images, and process starts.

    `--steps` is how long a round is with small batches; `--starts` may be 0.

    Returns: seconds a step of the loop and of its two compiled calls alone, and the difference as shares; and seconds
    from the start of a process to the end of its first step.
    """
    rows = [_loop(dataset, variant, batch, steps if batch < 64 else steps // 4, rounds) for batch in batches]
    return rows + (_starts(dataset, variant, starts) if starts else [])


def _loop(dataset: str, variant: str, batch: int, steps: int, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"loop": [], "alone": []}
    task = made_up_task(recipes.get(dataset, variant, batch_size=batch), learning_rate=RATE)
    _, pixels = next(task.train.batches(task.recipe, 0, sharding.data_mesh(1), task.fixed_targets(), ()))
    alone = Students(task, given=batches_of(task, itertools.repeat(pixels)))
    for number in range(rounds + 1):
        # Start, evaluation and record are in the long and in the short run.
        few, many = trained(task, FEW), trained(task, FEW + steps)
        calls = timing.seconds(lambda: alone.run(steps))
        if number:  # the first round compiles
            times["loop"].append((many - few) / steps)
            times["alone"].append(calls / steps)
    about = {"kind": "loop", "case": f"{dataset}, batch {batch}", "steps a round": steps}
    return about | {name: timing.summary(each) for name, each in times.items()} | overhead(**times)


def overhead(loop: list[float], alone: list[float]) -> dict[str, float]:
    """What the loop adds to its compiled calls, both in seconds a step of the same rounds, and its shares of a step."""
    added = timing.summary([whole - part for whole, part in zip(loop, alone, strict=True)]).median
    share = added / timing.summary(alone).median
    return {"overhead (s)": added, "share": share, "share at 50 ms": added / GOAL_STEP}


def trained(task: Task, steps: int) -> float:
    """Seconds of a run of so many steps, in silence; what it leaves is thrown away."""
    epochs, silence = steps * task.recipe.batch_size / len(task.train), io.StringIO()
    task, began = replace(task, recipe=replace(task.recipe, epochs=epochs)), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),
    ):
        (run,) = loop.train([(task, Path(folder))], checkpoint_seconds=float("inf"))
    if isinstance(run, Exception):
        raise run
    return time.perf_counter() - began


def _starts(dataset: str, variant: str, starts: int) -> Rows:
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    case = {"dataset": dataset, "variant": variant, "warm_up": 1}  # the first step, after which a job is ready
    for _ in range(starts):
        with tempfile.TemporaryDirectory() as cache:
            kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            for times in seconds.values():
                began = time.perf_counter()
                with process.Job(process.Place(__name__), case, **kept):
                    times.append(time.perf_counter() - began)
    return [{"kind": "start", "case": f"{name} run", "first step": timing.summary(s)} for name, s in seconds.items()]


def prepare(case: dict[str, Any]) -> tuple[Callable[[], None], None]:
    """The step of a run, in a process of its own; no facts."""
    return Students(setup.prepare(recipes.get(case["dataset"], case["variant"]))).run, None
