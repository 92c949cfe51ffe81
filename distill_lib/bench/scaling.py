"""How the time of a step grows with batch, pixels, students of a class and training images, and the fitted lines."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distill_lib.bench import timing

if TYPE_CHECKING:
    from distill_lib.bench.students import Students


AXES: dict[str, tuple[int, ...]] = {
    "batch size": (8, 32, 64, 128, 256),
    "pixels": (20, 28, 40, 56),
    "students": (1, 2, 4, 8, 16),
    "training images": (1_000, 10_000, 50_000, 100_000),
}
FIELDS = {"batch size": "batch_size", "pixels": "resolution"}  # of a recipe


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times whole steps, teacher and loading included, along each axis around the embedded study's settings.

    Returns:
        A row a case: the axis, its value, seconds a step, images a second (times students), and of its axis the line
        through the medians, seconds = intercept + slope * x, where x is the value, of pixels the number in an image.
    """
    options = timing.options(measure, arguments, rounds=9, axes=tuple(AXES), dataset="fashion", variant="quick")
    return [row for axis in options.axes for row in _axis(axis, options)]


def rows_of(axis: str, seconds: dict[int, timing.Timing], images: dict[int, int]) -> list[dict[str, Any]]:
    """Rows of one axis, with the line through it, from seconds and images a step by value."""
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


def _axis(axis: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    cases = {value: _case(axis, value, options) for value in AXES[axis]}
    timed = timing.interleaved({str(value): case.run for value, case in cases.items()}, rounds=options.rounds, calls=3)
    images = {value: case.task.recipe.batch_size * len(case.states) for value, case in cases.items()}
    return rows_of(axis, {value: timed[str(value)] for value in cases}, images)


def _case(axis: str, value: int, options: argparse.Namespace) -> Students:
    from distill_lib import recipes
    from distill_lib.bench.students import Students
    from distill_lib.train import setup

    changes = {FIELDS[axis]: value} if axis in FIELDS else {}
    work = setup.prepare(recipes.get(options.dataset, options.variant, **changes))
    if axis == "training images":  # repeated to that number
        train = work.train
        assert train is not None
        chosen = np.resize(np.arange(len(train.labels)), value)
        repeated = train._replace(images=train.images[chosen], labels=train.labels[chosen])
        work = dataclasses.replace(work, train=repeated, examples=value)
    return Students(work, value if axis == "students" else 1)


class Line(NamedTuple):
    """A line y = intercept + slope * x, and the share of y's variance that it explains; 1 where y is constant."""

    intercept: float
    slope: float
    r2: float


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fits a line by least squares, through at least two different x."""
    slope, intercept = (float(value) for value in np.polyfit(x, y, 1))
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    total = float(np.square(np.asarray(y) - np.mean(y)).sum())
    return Line(intercept, slope, 1 - float(np.square(rest).sum()) / total if total else 1.0)
