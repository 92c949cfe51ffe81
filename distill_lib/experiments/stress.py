"""Finished students judged once more, under stress; what came out is one record, `results/NAME.json`.

Nothing is trained. Students are those of a plan whose weights lie beside their records, in `student.npz` or, with the
book's own, in half precision. A record holds for every network a number for each of its conditions.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib import datasets, records, teachers, weights
from distill_lib.errors import DistillError, logger, unknown
from distill_lib.evaluation import corruptions, metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline.splits import InMemory
from distill_lib.models import compression
from distill_lib.models.ensemble import Ensemble

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe
    from distill_lib.teachers import Teacher

METRICS = ("top1", "ece", "kl", "agreement")
"""What records of networks under stress hold for each condition."""
CLEAN, TEACHER = "clean", "teacher"
"""The family of images as they are, whose severity is 0, and what stands there in the place of a policy."""
WEIGHTS = ("student.npz", "student_f16.npz")
Network = tuple[dict[str, Any], "Teacher"]  # what it is, and what answers


def stressed(
    name: str,
    runs: pd.DataFrame,
    recipe: Recipe,
    stresses: Iterable[str],
    results: weights.File | None = None,
    *,
    limit: int | None = None,
) -> records.Record | None:
    """Judges students, and their teacher beside them, under each of `stresses`; writes the record `name`.

    Stresses are `corruptions.FAMILIES` of test images, at all severities, or `compression.FORMS` that networks are
    brought into. `runs` are rows of `records.read`; the recipe names their data set, teacher and resolution. Of the
    test images the first `limit` are taken, or all. Where `DISTILL_READ_ONLY` is set, the record is only read.

    The record, or None, has `conditions` (family and severity, or form and bits of a weight), none at first, and in
    `teacher` and `students` by metric of `METRICS` a number for each. All are compared with the teacher under the same
    corruption, or with it as it is where they are in a form; then `bytes` are told, too. DistillError for an unknown
    stress, and where no weights, or no data, are at hand.
    """
    conditions = _conditions(stresses)
    if os.environ.get(READ_ONLY):
        return read(name, results)
    records.commit()  # of the code that is at work: it may be another one by the end
    mock, teacher = bool(runs["mock"].any()), load(recipe.teacher, recipe)
    data = datasets.arrays(recipe.dataset, "test", limit, mock=mock)
    networks: list[Network] = [({"policy": TEACHER, "run_id": teacher.name, "sha256": teacher.sha256}, teacher)]
    for row, path, student in students(runs, recipe, results):
        what = {name: row[name] for name in ("policy", "epochs", "seed", "study", "run_id")}
        networks.append((what | {"sha256": weights.sha256(path), "weights": path.name}, student))
    if len(networks) == 1:
        raise DistillError("no student's weights lie beside the records of this plan: train them (`-p results again`).")
    began, truth = time.perf_counter(), None
    forms = [family if family in compression.FORMS else "none" for family, _ in conditions]
    if set(forms) != {"none"}:
        for what, network in networks:
            what["bytes"] = [sum(compression.size(part, form) for part in network.variables) for form in forms]
    for number, ((family, level), form) in enumerate(zip(conditions, forms, strict=True), 1):
        corrupted = family in corruptions.FAMILIES
        images = corruptions.corrupt(data.images, family, level) if corrupted else data.images
        for what, network in networks:
            said = logits(_in_form(network, form), images, recipe)
            if what["policy"] == TEACHER and form == "none":
                truth = said
            judged = metrics.metrics(said, data.labels, truth)
            for metric in METRICS:
                what.setdefault(metric, []).append(round(judged[metric], 5))
        logger.info("%s: step %d/%d, %s %d", name, number, len(conditions), family, level)
    judge, *others = (what for what, _ in networks)
    about = {"dataset": recipe.dataset, "images": len(data.labels), "mock": mock}
    record: records.Record = {"schema": records.SCHEMA} | records.environment() | about | {"conditions": conditions}
    record |= {"wall_seconds": round(time.perf_counter() - began, 1), "teacher": judge, "students": others}
    text = json.dumps(record).replace('{"policy"', '\n{"policy"')
    path = records.find_results(results) / f"{name}{'_smoke' if mock else ''}.json"
    weights.write_atomically(path, text.encode())
    logger.info("%s", path)
    return json.loads(text)


def _conditions(stresses: Iterable[str]) -> list[tuple[str, int]]:
    conditions, known = [(CLEAN, 0)], [*corruptions.FAMILIES, *compression.FORMS]
    for stress in stresses:
        if stress not in known:
            raise unknown("stress", stress, known)
        levels = corruptions.SEVERITIES if stress in corruptions.FAMILIES else [compression.FORMS[stress].bits]
        conditions += [(stress, level) for level in levels]
    return conditions


def read(name: str, results: weights.File | None = None) -> records.Record | None:
    """The record of that name in a results folder, or None; DistillError if it cannot be read."""
    path = records.find_results(results) / f"{name}.json"
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, OSError) as error:
        raise DistillError(f"{path} is damaged ({error}); delete it and run its notebook again.") from error


def load(name: str, recipe: Recipe) -> Teacher:
    """A network for a recipe's data and resolution, named as for `teachers.load`."""
    card = datasets.get(recipe.dataset)
    return teachers.load(name, num_classes=card.num_classes, channels=card.channels, resolution=recipe.resolution)


def logits(network: Teacher, images: np.ndarray, recipe: Recipe) -> np.ndarray:
    """What a network says of images uint8 (n, height, width, channels) as a recipe evaluates: (n, classes)."""
    eval_set = EvalSet(InMemory(lambda: datasets.Arrays(images, np.zeros(len(images), np.int32))))
    return eval_set.logits(network.ensemble, network.variables, recipe.resolution)


def students(
    runs: pd.DataFrame, recipe: Recipe, results: weights.File | None = None
) -> Iterator[tuple[records.Row, Path, Teacher]]:
    """Of rows of `records.read` those whose weights are at hand, each with their file and the student itself."""
    for row in runs.to_dict("records"):
        folder = records.find_results(results) / row["study"] / row["run_id"]
        if path := next((folder / name for name in WEIGHTS if (folder / name).is_file()), None):
            yield row, path, load(str(path), recipe)


def _in_form(teacher: Teacher, form: str) -> Teacher:
    members = teacher.ensemble.members
    pairs = zip(members, teacher.variables, strict=True)
    models, variables = zip(*(compression.compressed(member.model, own, form) for member, own in pairs), strict=True)
    changed = [dataclasses.replace(member, model=model) for member, model in zip(members, models, strict=True)]
    return dataclasses.replace(teacher, ensemble=Ensemble(tuple(changed), teacher.ensemble.mean), variables=variables)
