"""What training costs beside its compiled steps: the loop around them, checkpoints, and the way to the first step."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.bench import timing
from distill_lib.errors import DistillError

if TYPE_CHECKING:
    from distill_lib.train.task import Task

GOAL_STEP = 0.05  # seconds; the overhead is told as a share of a step of this length too
CHECKPOINT_SECONDS = 60.0  # the least time between two checkpoints, as `train.fit` has it
JUDGED = 64  # images of each split
SAVED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fashion", "quick", {}),
    ("flowers", "smoke", {"student": "bit_r50x1", "resolution": 128}),
)

_FIRST_STEP = """
import json, sys, time
import jax
from distill_lib import recipes, train
from distill_lib.train import loop, setup

def stop(ahead, lesson, pupils):  # the loop calls this after every step
    jax.block_until_ready([one.state for one in pupils])
    print(json.dumps(time.time()), flush=True)
    raise SystemExit

loop._wait = stop
train.fit(recipes.get(sys.argv[1], sys.argv[2]), sys.argv[3])
"""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times the training loop beside its compiled calls, checkpoints, and process starts.

    Args:
        arguments: `--rounds N`, `--steps N` (that a round is long), `--batches N ...`, `--starts N`.

    Returns:
        Rows of three kinds. "loop": seconds a step of the loop and of its two compiled calls alone, and the difference
        as shares. "checkpoint": seconds of one, and its share of a run. "start": seconds from the start of a process
        to the end of its first step.
    """
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 128])
    parser.add_argument("--starts", type=timing.several, default=3)
    parser.add_argument("--dataset", default="fashion")
    parser.add_argument("--variant", default="quick")
    options = parser.parse_args(arguments)
    rows = [_loop(options, batch) for batch in options.batches]
    rows += [_checkpoint(*case, rounds=options.rounds) for case in SAVED]
    return rows + _starts(options)


def overhead(loop: list[float], alone: list[float]) -> dict[str, float]:
    """What the loop adds to its compiled calls, from pairs of rounds.

    Args:
        loop: seconds a step of the whole loop.
        alone: seconds a step of the compiled calls, in the same rounds.

    Returns:
        Seconds a step (the median of the differences), their share of the measured step, and of one of 50 ms.
    """
    added = timing.summary([one - other for one, other in zip(loop, alone, strict=True)]).median
    step = timing.summary(alone).median
    return {"overhead (s)": added, "share": added / step, "share at 50 ms": added / GOAL_STEP}


def checkpoint_share(save_seconds: float, pause: float) -> float:
    """Share of a run's time that goes into checkpoints, when so much time passes between them."""
    return save_seconds / (save_seconds + pause)


def _loop(options: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Two runs of different length share set-up, evaluation and record; what is between them is the loop alone."""
    from distill_lib import recipes
    from distill_lib.train import setup

    short, steps = 20, options.steps if batch < 64 else options.steps // 4
    recipe = recipes.get(options.dataset, options.variant, batch_size=batch, evaluations=1, warmup_steps=1)
    work = _hardly_judged(setup.prepare(recipe))
    few, many = (_of_length(work, length) for length in (short, short + steps))
    compiled = _compiled(work)
    spent: dict[str, list[float]] = {"loop": [], "alone": []}
    for number in range(options.rounds + 1):
        difference = timing.seconds(lambda: _trained(many)) - timing.seconds(lambda: _trained(few))
        alone = timing.seconds(lambda: compiled(steps))
        if number:  # the first one compiles
            spent["loop"].append(difference / steps)
            spent["alone"].append(alone / steps)
    seconds = {name: timing.summary(each) for name, each in spent.items()}
    case = {"kind": "loop", "case": f"{options.dataset}, batch {batch}", "steps a round": steps}
    return case | seconds | overhead(spent["loop"], spent["alone"])


def _hardly_judged(work: Task) -> Task:
    """The task with few images to be judged by, so that evaluation does not drown what is measured."""
    from distill_lib.evaluation import eval_sets

    def short(exam: eval_sets.Exam) -> eval_sets.Exam:
        assert isinstance(exam, eval_sets.InMemory)
        return eval_sets.InMemory(lambda: exam.arrays, work.recipe.eval_side, JUDGED)

    return dataclasses.replace(work, exams={split: short(exam) for split, exam in work.exams.items()})


def _of_length(work: Task, steps: int) -> Task:
    epochs = steps * work.recipe.batch_size / work.examples
    return dataclasses.replace(work, recipe=dataclasses.replace(work.recipe, epochs=epochs))


def _trained(work: Task) -> None:
    from distill_lib.train import loop as train_loop

    with contextlib.ExitStack() as stack:
        folder, nowhere = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        train_loop.train([(work, Path(folder))], checkpoint_seconds=float("inf"))


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
    recipe, train = work.recipe, work.train
    indices = sampler.batch_indices(0, 0, recipe.batch_size, work.examples)
    asked = work.teacher.variables if work.teacher and work.asks_teacher else ()
    source = Images(train.images, work.targets(), train.extents, indices)
    fixed = jax.device_put((train_step.view_key(0), np.int32(0), source, asked, np.float32(recipe.temperature)))
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
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory() as home:
            for number in seconds:
                began = time.time()
                seconds[number].append(_first_step(home, options) - began)
    return [{"kind": "start", "case": f"{name} run", "first step": timing.summary(seconds[name])} for name in seconds]


def _first_step(home: str, options: argparse.Namespace) -> float:
    """When the first step of a new process ended, in seconds since the epoch."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-c", _FIRST_STEP, options.dataset, options.variant]
    with tempfile.TemporaryDirectory() as results:
        done = subprocess.run([*command, results], env=environment | {"HOME": home}, capture_output=True, text=True)
    if done.returncode:
        raise DistillError(f"a run did not start: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
