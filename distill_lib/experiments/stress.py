"""Finished students judged once more, under stress; what came out is one record, `results/NAME.json`.

Nothing is trained. Students are those of a plan whose weights lie beside their records, in `student.npz` or, with the
book's own, in half precision. A record holds for every network a number for each of its conditions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib import datasets, records, teachers, weights
from distill_lib.errors import DistillError, logger
from distill_lib.evaluation import corruptions, metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.experiments.definitions import CLEAN, METRICS, TEACHER
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline.splits import InMemory
from distill_lib.models import quantized as rounding

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe
    from distill_lib.teachers import Teacher

WEIGHTS = ("student.npz", "student_f16.npz")
Condition = tuple[str, int]  # family and severity, or number of bits
Network = tuple[dict[str, Any], "Teacher"]  # what it is, and what answers


def corrupted(
    runs: pd.DataFrame, recipe: Recipe, results: weights.File | None = None, *, limit: int | None = None
) -> records.Record | None:
    """Judges students, and their teacher beside them, on corrupted test images; writes the record `robustness`.

    Where `DISTILL_READ_ONLY` is set, the record is only read. `runs` are rows of `records.read`, the recipe names their
    data set, teacher and resolution, and of the test images the first `limit` are taken, or all. The record, or None,
    has `conditions` (family and severity), and in `teacher` and `students` by metric of `METRICS` a number for each;
    students are compared with the teacher on the same images. DistillError where no weights, or no data, are at hand.
    """
    if os.environ.get(READ_ONLY):
        return read("robustness", results)
    about, data, networks = _opened(runs, recipe, results, limit)
    conditions = [(CLEAN, 0), *((family, level) for family in corruptions.FAMILIES for level in corruptions.SEVERITIES)]

    def answers(condition: Condition) -> list[np.ndarray]:
        images = data.images if condition[0] == CLEAN else corruptions.corrupt(data.images, *condition)
        shown = EvalSet(InMemory(lambda: data._replace(images=images)))
        return [shown.logits(each.ensemble, each.variables, recipe.resolution) for _, each in networks]

    return _judged("robustness", results, about, networks, data.labels, conditions, answers)


def quantized(
    runs: pd.DataFrame,
    recipe: Recipe,
    results: weights.File | None = None,
    *,
    limit: int | None = None,
    bits: Sequence[int] = (8, 6, 5, 4, 3),
) -> records.Record | None:
    """As `corrupted`, with weights rounded to so many bits, beside the teacher as it is; writes the record `quantize`.

    Conditions are of the family "bits", and `bytes` the size of each network in each of them.
    """
    if os.environ.get(READ_ONLY):
        return read("quantize", results)
    about, data, networks = _opened(runs, recipe, results, limit)
    conditions = [(CLEAN, 0), *(("bits", each) for each in bits)]
    shown = EvalSet(InMemory(lambda: data))

    def answers(condition: Condition) -> list[np.ndarray]:
        family, count = condition
        logits = []
        for _, each in networks:
            own = each.variables
            if family != CLEAN:
                own = tuple(rounding.rounded(part, count) for part in own)
            logits.append(shown.logits(each.ensemble, own, recipe.resolution))
        return logits

    for what, each in networks:
        sizes = [rounding.FULL, *bits]
        what["bytes"] = [sum(rounding.size(part, size) for part in each.variables) for size in sizes]
    return _judged("quantize", results, about, networks, data.labels, conditions, answers, of_first=True)


def read(name: str, results: weights.File | None = None) -> records.Record | None:
    """The record of that name in a results folder, or None; DistillError if it cannot be read."""
    path = records.find_results(results) / f"{name}.json"
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, OSError) as error:
        raise DistillError(f"{path} is damaged ({error}); delete it and run its notebook again.") from error


def _opened(
    runs: pd.DataFrame, recipe: Recipe, results: weights.File | None, limit: int | None
) -> tuple[records.Record, datasets.Arrays, list[Network]]:
    """What is judged in words; the test images; and the teacher, and the students whose weights are at hand."""
    records.commit()  # of the code that is at work: it may be another one by the end
    card, mock = datasets.get(recipe.dataset), bool(runs["mock"].any())
    data = datasets.arrays(recipe.dataset, "test", limit, mock=mock)
    about = {"dataset": recipe.dataset, "images": len(data.labels), "mock": mock}

    def load(name: str) -> Teacher:
        return teachers.load(name, num_classes=card.num_classes, channels=card.channels, resolution=recipe.resolution)

    networks: list[Network] = []
    for row in runs.to_dict("records"):
        folder = records.find_results(results) / row["study"] / row["run_id"]
        if path := next((folder / name for name in WEIGHTS if (folder / name).is_file()), None):
            what = {name: row[name] for name in ("policy", "epochs", "seed", "study", "run_id")}
            networks.append((what | {"sha256": weights.sha256(path), "weights": path.name}, load(str(path))))
    if not networks:
        raise DistillError("no student's weights lie beside the records of this plan: train them (`-p results again`).")
    teacher = load(recipe.teacher)
    return about, data, [({"policy": TEACHER, "run_id": teacher.name, "sha256": teacher.sha256}, teacher), *networks]


def _judged(
    name: str,
    results: weights.File | None,
    about: records.Record,
    networks: Sequence[Network],
    labels: np.ndarray,
    conditions: Sequence[Condition],
    answers: Callable[[Condition], list[np.ndarray]],
    of_first: bool = False,
) -> records.Record:
    """Asks all networks under every condition, and writes what came out, a network a line.

    They are compared with the first one under the same condition, or `of_first` with the first one under the first.
    """
    began, numbers = time.perf_counter(), [{metric: list[float]() for metric in METRICS} for _ in networks]
    truth = None
    for number, condition in enumerate(conditions, 1):
        logits = answers(condition)
        truth = logits[0] if truth is None or not of_first else truth
        for own, each in zip(numbers, logits, strict=True):
            judged = metrics.metrics(each, labels, truth)
            for metric in METRICS:
                own[metric].append(round(judged[metric], 5))
        logger.info("%s: step %d/%d, %s %d", name, number, len(conditions), *condition)
    teacher, *students = (what | own for (what, _), own in zip(networks, numbers, strict=True))
    record: records.Record = {"schema": records.SCHEMA} | records.environment() | about | {"conditions": conditions}
    record |= {"wall_seconds": round(time.perf_counter() - began, 1), "teacher": teacher, "students": students}
    text = json.dumps(record).replace('{"policy"', '\n{"policy"')
    path = records.find_results(results) / f"{name}{'_smoke' if about['mock'] else ''}.json"
    weights.write_atomically(path, text.encode())
    logger.info("%s", path)
    return json.loads(text)
