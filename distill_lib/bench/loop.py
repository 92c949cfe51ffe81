"""What training costs beside its compiled steps: the loop around them, checkpoints, and the way to the first step."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.bench import process, timing

if TYPE_CHECKING:
    from distill_lib.train.task import Task

FEW = 20  # steps of a run that is subtracted
RATE = 1e-4  # at which a teacher of nonsense makes nothing diverge
GOAL_STEP = 0.05  # seconds; the overhead is told as a share of a step of this length too
CHECKPOINT_SECONDS = 60.0  # the least time between two checkpoints, as `train.fit` has it
SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fashion", "quick", {}),
    ("flowers", "smoke", {"student": "bit_r50x1", "resolution": 128}),
)
_FIRST_STEP = """
import json, sys, time
from distill_lib import recipes, sharding
from distill_lib.bench.students import Students
from distill_lib.train import loop, setup

sharding.use_compilation_cache()
Students(setup.prepare(recipes.get(*json.loads(sys.argv[1])))).run()
print(time.time())
"""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times the training loop beside its compiled calls, checkpoints, and process starts.

    `--steps` is how long a round is with small batches.

    Returns:
        Rows of three kinds. "loop": seconds a step of the loop and of its two compiled calls alone, and the difference
        as shares. "checkpoint": seconds of one, and its share of a run. "start": seconds from the start of a process
        to the end of its first step.
    """
    defaults = {"steps": 400, "batches": [8, 128], "starts": 3, "dataset": "fashion", "variant": "quick"}
    options = timing.options(measure, arguments, rounds=7, **defaults)
    rows = [_loop(options, batch) for batch in options.batches]
    rows += [_checkpoint(*case, rounds=options.rounds) for case in SAVED]
    return rows + _starts(options)


def overhead(loop: list[float], alone: list[float]) -> dict[str, float]:
    """What the loop adds to its compiled calls, both in seconds a step of the same rounds, and its shares of a step."""
    added = timing.summary([one - other for one, other in zip(loop, alone, strict=True)]).median
    step = timing.summary(alone).median
    return {"overhead (s)": added, "share": added / step, "share at 50 ms": added / GOAL_STEP}


def checkpoint_share(save_seconds: float, pause: float) -> float:
    """Share of a run's time that goes into checkpoints, when so much time passes between them."""
    return save_seconds / (save_seconds + pause)


def per_step(work: Task, steps: int) -> float:
    """Seconds a step of the training loop, from a long and a short run: start, evaluation and record are in both."""
    few, many = (timing.seconds(functools.partial(trained, work, length)) for length in (FEW, FEW + steps))
    return (many - few) / steps


def trained(work: Task, steps: int) -> None:
    """Trains for so many steps, in silence; what the run leaves is thrown away."""
    from distill_lib.train import loop as train_loop

    epochs = steps * work.recipe.batch_size / work.examples
    work = dataclasses.replace(work, recipe=dataclasses.replace(work.recipe, epochs=epochs))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        (run,) = train_loop.train([(work, Path(folder))], checkpoint_seconds=float("inf"))
    if isinstance(run, Exception):
        raise run


def _loop(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    from distill_lib import recipes
    from distill_lib.bench import made_up
    from distill_lib.train import setup

    steps = options.steps if batch < 64 else options.steps // 4
    spent: dict[str, list[float]] = {"loop": [], "alone": []}
    with tempfile.TemporaryDirectory() as folder:
        preset = recipes.get(options.dataset, options.variant, batch_size=batch)
        work = setup.prepare(made_up.like(preset, Path(folder), learning_rate=RATE))
        compiled = _compiled(work)
        for _ in range(options.rounds + 1):
            spent["loop"].append(per_step(work, steps))
            spent["alone"].append(timing.seconds(functools.partial(compiled, steps)) / steps)
    rounds = {name: times[1:] for name, times in spent.items()}  # the first one compiles
    case = {"kind": "loop", "case": f"{options.dataset}, batch {batch}", "steps a round": steps}
    return case | {name: timing.summary(times) for name, times in rounds.items()} | overhead(**rounds)


def _compiled(work: Task) -> Callable[[int], None]:
    """So many steps of the two compiled programs, with everything they need on the device beforehand."""
    import jax
    import numpy as np

    from distill_lib.input_pipeline import sampler
    from distill_lib.train import state as train_state
    from distill_lib.train import step as train_step
    from distill_lib.train.batches import LESSONS_AHEAD
    from distill_lib.train.sources import Images

    assert work.train is not None
    assert work.teacher is not None
    indices = sampler.batch_indices(0, 0, work.recipe.batch_size, work.examples)
    source = Images(work.train.images, work.targets(), work.train.extents, indices)
    temperature = np.float32(work.recipe.temperature)
    fixed = jax.device_put((train_step.view_key(0), np.int32(0), source, work.teacher.variables, temperature))
    teach, learn = train_step.teach(work.plan), train_step.learn(work.student, work.objective)
    settings = jax.device_put(work.settings)

    def run(steps: int) -> None:
        state = train_state.initial_state(work.student, 0, work.image_shape)
        ahead: deque[jax.Array] = deque()
        for _ in range(steps):
            lesson = teach(*fixed)
            state = learn(state, settings, lesson)
            ahead.append(lesson.wanted)
            if len(ahead) > LESSONS_AHEAD:  # as the loop does: a device that is sent all at once is slower
                jax.block_until_ready(ahead.popleft())
        jax.block_until_ready(state)

    return run


def _checkpoint(dataset: str, variant: str, changes: dict[str, Any], *, rounds: int) -> dict[str, Any]:
    from distill_lib import recipes, sharding
    from distill_lib.train import loop as train_loop
    from distill_lib.train import setup, student

    work = setup.prepare(recipes.get(dataset, variant, **changes))
    with tempfile.TemporaryDirectory() as folder:
        one = student.take_up(work, Path(folder), sharding.data_mesh(1))
        spent = []
        for number in range(rounds + 1):
            one.state = one.state._replace(step=one.state.step * 0 + number)  # a step that is there is not saved again
            spent.append(timing.seconds(one.save))
    save = timing.summary(spent[1:])
    pause = train_loop.checkpoint_pause(save.median, CHECKPOINT_SECONDS)
    case = {"kind": "checkpoint", "case": work.recipe.student, "save": save, "pause (s)": pause}
    return case | {"share": checkpoint_share(save.median, pause)}


def _starts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Starts processes whose home is empty, and each a second time, when its compiled programs are there."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory() as home:
            for times in seconds.values():
                began, given = time.time(), [options.dataset, options.variant]
                times.append(process.answer(_FIRST_STEP, given, inherited | {"HOME": home}) - began)
    return [
        {"kind": "start", "case": f"{name} run", "first step": timing.summary(times)} for name, times in seconds.items()
    ]
