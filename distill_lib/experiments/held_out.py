"""What finished students of `photographs` say of whole photographs that no student learns from."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import losses, records, teachers, views, weights
from distill_lib.datasets import package_images
from distill_lib.experiments.running import READ_ONLY

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = tuple(name for name, row in package_images.SHEET.items() if row["split"] != "train")
"""Names of these photographs."""


def probabilities(network: str, resolution: int) -> np.ndarray:
    """What a network says of the central square of each of `HELD_OUT`, (photographs, 1000); raises as `teachers.load`.

    `network` is a name or path as in `teachers.load`, `resolution` its images' side in pixels where it has none itself.
    """
    teacher = teachers.load(network, num_classes=1_000, channels=3, resolution=resolution)
    (size,) = teacher.ensemble.sizes(resolution)
    shown = []
    for image in map(package_images.load, HELD_OUT):
        view = views.still(1, image_aspect=image.shape[1] / image.shape[0])
        shown.append(views.render(image[None], view, size))
    return np.asarray(jax.nn.softmax(jax.jit(teacher.logits)(np.concatenate(shown))))


def constant(logits: np.ndarray) -> dict[str, float]:
    """What the best answer that never looks reaches on images of which a teacher says `logits` (n, classes).

    `agreement` is that of the most frequent first guess, `agreement@5` of the five most frequent, and `kl` the mean
    divergence of the mean prediction, which is the smallest that any constant has; all chosen on these very images.
    """
    shares = np.asarray(jax.nn.softmax(logits))
    counts = np.sort(np.bincount(logits.argmax(-1)))[::-1] / len(logits)
    kl = losses.kl(jnp.log(shares.mean(0)), jnp.asarray(logits)).mean()
    return {"agreement": float(counts[0]), "agreement@5": float(counts[:5].sum()), "kl": float(kl)}


def add_guesses(runs: pd.DataFrame, results: weights.File | None = None) -> pd.DataFrame:
    """Adds to records what students say first of `HELD_OUT`, where weights are at hand; returns all records anew.

    Of each photograph, by its name, `_class` is the first guess, `_share` its probability, and `_rank` the place of the
    teacher's first guess among the student's, from 1; `_teacher_class` and `_teacher_share` are that guess. Where
    `DISTILL_READ_ONLY` is set, `runs` are returned.
    """
    if os.environ.get(READ_ONLY):
        return runs
    ask = functools.cache(probabilities)
    for row in runs.to_dict("records"):
        folder = records.find_results(results) / row["study"] / row["run_id"]
        if not (folder / "student.npz").is_file():
            continue
        added = records.Row()
        answers = (ask(network, row["resolution"]) for network in (row["teacher"], str(folder / "student.npz")))
        for name, expected, said in zip(HELD_OUT, *answers, strict=True):
            for who, shares in ((f"{name}_teacher", expected), (name, said)):
                added[f"{who}_class"], added[f"{who}_share"] = int(shares.argmax()), round(float(shares.max()), 4)
            added[f"{name}_rank"] = int((said > said[expected.argmax()]).sum()) + 1
        records.add(folder, added)
    return records.read(results, mock=bool(runs["mock"].any()))
