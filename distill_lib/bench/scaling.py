"""How the time of a step grows with batch, pixels, students of a class and training images, and the fitted lines."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib.bench import timing

if TYPE_CHECKING:
    from distill_lib.train.task import Task


AXES: dict[str, tuple[int, ...]] = {
    "batch size": (8, 32, 64, 128, 256),
    "pixels": (20, 28, 40, 56),
    "students": (1, 2, 4, 8, 16),
    "training images": (1_000, 10_000, 50_000, 100_000),
}


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times whole steps, teacher and loading included, along each axis around the embedded study's settings.

    Args:
        arguments: `--rounds N`, `--axes NAME ...`, `--dataset`, `--variant`.

    Returns:
        A row a case: the axis, its value, seconds a step, images a second (times students), and of its axis the line
        through the medians, seconds = intercept + slope * x, where x is the value, of pixels the number in an image.
    """
    parser = timing.parser(measure, rounds=9)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--dataset", default="fashion")
    parser.add_argument("--variant", default="quick")
    options = parser.parse_args(arguments)
    return [row for axis in options.axes for row in _axis(axis, AXES[axis], options)]


def rows_of(axis: str, seconds: dict[int, timing.Timing], images: dict[int, int]) -> list[dict[str, Any]]:
    """Rows of one axis, with the line through it.

    Args:
        axis: a key of `AXES`.
        seconds: a step, by value.
        images: that students saw in a step, by value.
    """
    x = [amount(axis, value) for value in seconds]
    line = fit(x, [each.median for each in seconds.values()])
    return [
        {"axis": axis, "value": value, "step": seconds[value], "images/s": images[value] / seconds[value].median}
        | {"intercept": line.intercept, "slope": line.slope, "R2": line.r2}
        for value in seconds
    ]


def amount(axis: str, value: float) -> float:
    """What the time of a step is fitted against: of pixels the number in an image, else the value itself."""
    return value**2 if axis == "pixels" else value


def _axis(axis: str, values: tuple[int, ...], options: argparse.Namespace) -> list[dict[str, Any]]:
    cases = {value: _case(axis, value, options) for value in values}
    seconds = timing.interleaved({str(value): run for value, (run, _) in cases.items()}, rounds=options.rounds, calls=3)
    by_value = {value: seconds[str(value)] for value in values}
    return rows_of(axis, by_value, {value: images for value, (_, images) in cases.items()})


def _case(axis: str, value: int, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """A step as the training loop does it, waited for, and the images that all students saw in it."""
    import jax

    from distill_lib import recipes, sharding
    from distill_lib.train import batches, setup, step
    from distill_lib.train import state as train_state

    changed = {"batch size": "batch_size", "pixels": "resolution"}.get(axis)
    work = setup.prepare(recipes.get(options.dataset, options.variant, **({changed: value} if changed else {})))
    if axis == "training images":
        work = _enlarged(work, value)
    mesh = sharding.data_mesh(1)
    given = iter(batches.Lessons(work, 0, mesh))
    learn = step.learn(work.student, work.objective)
    students = value if axis == "students" else 1
    states = [train_state.initial_state(work.student, seed, work.image_shape) for seed in range(students)]

    def run() -> None:
        lesson = next(given)
        for number, state in enumerate(states):
            states[number] = learn(state, work.settings, lesson)
        jax.block_until_ready(states)

    return run, work.recipe.batch_size * students


def _enlarged(work: Task, images: int) -> Task:
    """The task with its training images repeated to that number."""
    import numpy as np

    train = work.train
    assert train is not None
    chosen = np.resize(np.arange(len(train.labels)), images)
    repeated = train._replace(images=train.images[chosen], labels=train.labels[chosen])
    return dataclasses.replace(work, train=repeated, examples=images)


@dataclass(frozen=True)
class Line:
    """A line y = intercept + slope * x.

    Attributes:
        intercept: y at x = 0.
        slope: growth of y for one more of x.
        r2: share of the variance of y that the line explains; 1 where y is constant.
    """

    intercept: float
    slope: float
    r2: float


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fits a line by least squares.

    Args:
        x: at least two different values.
        y: as many.
    """
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    total = float(np.square(np.asarray(y) - np.mean(y)).sum())
    return Line(intercept, slope, 1 - float(np.square(rest).sum()) / total if total else 1.0)
