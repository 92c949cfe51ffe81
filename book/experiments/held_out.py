"""What finished students of `photographs` say of photographs that no student learns from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import jax
import numpy as np

from distill_lib import datasets, records, weights
from distill_lib.datasets import package_images
from distill_lib.evaluation import metrics
from distill_lib.experiments import stress
from distill_lib.experiments.running import READ_ONLY

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe

HELD_OUT = tuple(name for name, row in package_images.SHEET.items() if row["split"] != "train")
"""Names of these photographs."""


def photographs() -> np.ndarray:
    """The central square of each of `HELD_OUT`, (photographs, side, side, 3)."""
    return np.stack([package_images.central(name) for name in HELD_OUT])


def places(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The place, from 1, of a teacher's first guess among a student's classes, (n,), from logits of both."""
    best = np.take_along_axis(logits, expected.argmax(-1)[:, None], axis=-1)
    return (logits > best).sum(-1) + 1


def constant(seen: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """What one answer to all images reaches: a teacher's mean prediction on `seen`, judged on `expected`.

    Both are logits (n, 1000) of the teacher; returns `metrics.metrics`, and `rank`, the median of `places`. The mean
    prediction on `expected` itself has the smallest divergence that a constant can have.
    """
    mean = np.log(np.asarray(jax.nn.softmax(seen)).mean(0))
    said = np.broadcast_to(mean, expected.shape)
    return metrics.metrics(said, None, expected) | {"rank": float(np.median(places(said, expected)))}


def add_guesses(runs: pd.DataFrame, recipe: Recipe, results: weights.File | None = None) -> pd.DataFrame:
    """Adds to records what students say of photographs, where their weights are at hand; returns all records anew.

    The recipe names their teacher and resolution. `validation_rank` and `test_rank` are medians of `places` over
    squares. Of each of `HELD_OUT`, by its name, `_class` is the first guess, `_share` its probability, `_rank` its
    place; `_teacher_class` and `_teacher_share` are the teacher's guess. Where `DISTILL_READ_ONLY` is set, `runs` are
    returned.
    """
    if os.environ.get(READ_ONLY):
        return runs
    mock, splits = bool(runs["mock"].any()), ("validation", "test")
    images = [*(datasets.arrays(recipe.dataset, split, mock=mock).images for split in splits), photographs()]
    teacher = stress.load(recipe.teacher, recipe)
    expected = [stress.logits(teacher, each, recipe) for each in images]
    for _, path, student in stress.students(runs, recipe, results):
        said = [stress.logits(student, each, recipe) for each in images]
        *ranks, own_ranks = map(places, said, expected)
        medians = {f"{split}_rank": float(np.median(rank)) for split, rank in zip(splits, ranks, strict=True)}
        added: records.Row = {}
        shares = [np.asarray(jax.nn.softmax(logits[-1])) for logits in (said, expected)]
        for name, rank, *both in zip(HELD_OUT, own_ranks, *shares, strict=True):
            added[f"{name}_rank"] = int(rank)
            for who, share in zip((name, f"{name}_teacher"), both, strict=True):
                added[f"{who}_class"], added[f"{who}_share"] = int(share.argmax()), round(float(share.max()), 4)
        records.add(path.parent, medians | added)
    return records.read(results, mock=mock)
