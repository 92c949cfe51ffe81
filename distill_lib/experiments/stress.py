"""Finished students judged once more, under stress; what came out is one record, `results/NAME.json`.

Nothing is trained. Students are those of a plan whose weights lie beside their records, in `student.npz` or, with the
book's own, in half precision. A record holds for every network a number for each of its conditions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib import datasets, records, teachers, weights
from distill_lib.errors import DistillError
from distill_lib.evaluation import corruptions, metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.experiments.definitions import CLEAN, METRICS, TEACHER
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline.splits import InMemory
from distill_lib.log import logger

if TYPE_CHECKING:
    import pandas as pd

    from distill_lib.recipes import Recipe
    from distill_lib.teachers import Teacher

WEIGHTS = ("student.npz", "student_f16.npz")
Network = tuple[dict[str, Any], "Teacher"]  # what it is, and what answers


def corrupted(
    runs: pd.DataFrame, recipe: Recipe, results: weights.File | None = None, *, limit: int | None = None
) -> records.Record | None:
    """Judges students, and their teacher beside them, on corrupted test images; writes the record `robustness`.

    Where `DISTILL_READ_ONLY` is set, the record is only read. `runs` are rows of `records.read`, the recipe names their
    data set, teacher and resolution, and of the test images the first `limit` are taken, or all.

    Returns:
        The record, None where there is none to read: `conditions` (family and severity of each), and in `teacher` and
        `students` what each network is and by metric of `METRICS` its numbers, one for each condition. Students are
        compared with the teacher's answers to the same corrupted images.

    Raises:
        DistillError: if no student's weights are at hand, or data, teacher or weights are not usable.
    """
    if os.environ.get(READ_ONLY):
        return read("robustness", results)
    records.commit()  # of the code that is at work: it may be another one by the end
    mock = bool(runs["mock"].any())
    data = datasets.arrays(recipe.dataset, "test", limit, mock=mock)
    conditions = [(CLEAN, 0), *((family, level) for family in corruptions.FAMILIES for level in corruptions.SEVERITIES)]
    networks, began = _networks(runs, recipe, results), time.perf_counter()
    numbers: list[dict[str, list[float]]] = [{metric: [] for metric in METRICS} for _ in networks]
    for number, (family, severity) in enumerate(conditions, 1):
        images = data.images if family == CLEAN else corruptions.corrupt(data.images, family, severity)
        shown = EvalSet(InMemory(lambda: data._replace(images=images)))  # noqa: B023
        logits = [shown.logits(each.ensemble, each.variables, recipe.resolution) for _, each in networks]
        for own, answers in zip(numbers, logits, strict=True):
            judged = metrics.metrics(answers, data.labels, logits[0])
            for metric in METRICS:
                own[metric].append(round(judged[metric], 5))
        logger.info("robustness: step %d/%d, %s %d", number, len(conditions), family, severity)
    about = {"dataset": recipe.dataset, "images": len(data.labels), "conditions": conditions, "mock": mock}
    teacher, *students = (what | own for (what, _), own in zip(networks, numbers, strict=True))
    about |= {"wall_seconds": round(time.perf_counter() - began, 1), "teacher": teacher, "students": students}
    return _written("robustness", results, about)


def read(name: str, results: weights.File | None = None) -> records.Record | None:
    """The record of that name in a results folder, or None; DistillError if it cannot be read."""
    path = _root(results) / f"{name}.json"
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, OSError) as error:
        raise DistillError(f"{path} is damaged ({error}); delete it and run its notebook again.") from error


def _networks(runs: pd.DataFrame, recipe: Recipe, results: weights.File | None) -> Sequence[Network]:
    """The teacher, and the students whose weights are at hand."""
    card, networks = datasets.get(recipe.dataset), []

    def load(name: str) -> Teacher:
        return teachers.load(name, num_classes=card.num_classes, channels=card.channels, resolution=recipe.resolution)

    for row in runs.to_dict("records"):
        folder = _root(results) / row["study"] / row["run_id"]
        if path := next((folder / name for name in WEIGHTS if (folder / name).is_file()), None):
            about = {name: row[name] for name in ("policy", "epochs", "seed", "study", "run_id")}
            networks.append((about | {"sha256": weights.sha256(path), "weights": path.name}, load(str(path))))
    if not networks:
        raise DistillError("no student's weights lie beside the records of this plan: train them (`-p results again`).")
    teacher = load(recipe.teacher)
    return [({"policy": TEACHER, "run_id": teacher.name, "sha256": teacher.sha256}, teacher), *networks]


def _written(name: str, results: weights.File | None, about: records.Record) -> records.Record:
    """Writes a record, a network a line."""
    record = {"schema": records.SCHEMA} | records.environment() | about
    text = json.dumps(record).replace('{"policy"', '\n{"policy"')
    path = _root(results) / f"{name}{'_smoke' if about['mock'] else ''}.json"
    weights.write_atomically(path, text.encode())
    logger.info("%s", path)
    return json.loads(text)


def _root(results: weights.File | None) -> Path:
    return Path(results) if results is not None else records.find_results()
