"""What finished students of `photographs` say of photographs that no student learns from."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import jax
import numpy as np

from distill_lib import datasets, records, teachers, weights
from distill_lib.datasets import package_images
from distill_lib.evaluation import metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline.splits import InMemory

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.teachers import Teacher

HELD_OUT = tuple(name for name, row in package_images.SHEET.items() if row["split"] != "train")
"""Names of these photographs."""
_CLASSES, _CHANNELS = 1_000, 3


def load(network: str, resolution: int) -> Teacher:
    """A network for `photographs`, as `teachers.load`; `resolution` is its images' side where it has none itself."""
    return teachers.load(network, num_classes=_CLASSES, channels=_CHANNELS, resolution=resolution)


def of_squares(network: Teacher, split: str, resolution: int, *, every: int = 1, mock: bool = False) -> np.ndarray:
    """Logits (n, 1000) of a network on a split of `photographs`, or on each so manieth square of it."""
    return _logits(network, datasets.arrays("photographs", split, mock=mock).images[::every], resolution)


def of_photographs(network: Teacher, resolution: int) -> np.ndarray:
    """Logits (photographs, 1000) of a network on the central square of each of `HELD_OUT`."""
    return _logits(network, np.stack([package_images.central(name) for name in HELD_OUT]), resolution)


def _logits(network: Teacher, images: np.ndarray, resolution: int) -> np.ndarray:
    shown = EvalSet(InMemory(lambda: datasets.Arrays(images, np.zeros(len(images), np.int32))))
    return shown.logits(network.ensemble, network.variables, resolution)


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


def add_guesses(runs: pd.DataFrame, results: weights.File | None = None) -> pd.DataFrame:
    """Adds to records what students say of photographs, where their weights are at hand; returns all records anew.

    `validation_rank` and `test_rank` are medians of `places` over squares. Of each of `HELD_OUT`, by its name, `_class`
    is the first guess, `_share` its probability, `_rank` its place; `_teacher_class` and `_teacher_share` are the
    teacher's guess. Where `DISTILL_READ_ONLY` is set, `runs` are returned.
    """
    if os.environ.get(READ_ONLY):
        return runs
    mock = bool(runs["mock"].any())
    teacher = functools.cache(lambda name, side: _answers(load(name, side), side, mock))
    for row in runs.to_dict("records"):
        folder = records.find_results(results) / row["study"] / row["run_id"]
        if not (folder / "student.npz").is_file():
            continue
        own = _answers(load(str(folder / "student.npz"), row["resolution"]), row["resolution"], mock)
        *squares, whole = zip(own, teacher(row["teacher"], row["resolution"]), strict=True)
        added: records.Row = {
            f"{split}_rank": float(np.median(places(*pair)))
            for split, pair in zip(("validation", "test"), squares, strict=True)
        }
        shares = [np.asarray(jax.nn.softmax(logits)) for logits in whole]
        for name, rank, *both in zip(HELD_OUT, places(*whole), *shares, strict=True):
            added[f"{name}_rank"] = int(rank)
            for who, said in zip((name, f"{name}_teacher"), both, strict=True):
                added[f"{who}_class"], added[f"{who}_share"] = int(said.argmax()), round(float(said.max()), 4)
        records.add(folder, added)
    return records.read(results, mock=mock)


def _answers(network: Teacher, resolution: int, mock: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    squares = [of_squares(network, split, resolution, mock=mock) for split in ("validation", "test")]
    return squares[0], squares[1], of_photographs(network, resolution)
