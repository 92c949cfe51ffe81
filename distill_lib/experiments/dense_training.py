"""Training of dense students, and their records.

Views and a student's step are the library's own. The loop is not: targets are maps, which move with the crop, and that
of `train` has labels and logits of whole images. It is short, and a run that is stopped begins anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from distill_lib import models, records, sharding, views, weights
from distill_lib.errors import logger
from distill_lib.evaluation import metrics
from distill_lib.experiments import dense
from distill_lib.experiments.dense import CANVAS, CLASSES, SCENES, TEACHER, VIEW, Ask, Dense, Scenes
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline import sampler
from distill_lib.recipes import Recipe
from distill_lib.train import step

if TYPE_CHECKING:
    import pandas as pd

PICTURED = 4  # test scenes whose segmentation is kept beside a record, in `maps.png`


def run(recipes: Sequence[Recipe], results: weights.File | None = None) -> pd.DataFrame:
    """Trains what a plan lacks, seeds of one policy and length together; only reads where `DISTILL_READ_ONLY` is set.

    Returns all records of the results folder, as `records.read`. DistillError where data or records are not usable.
    """
    mock, folder = any(recipe.variant == "smoke" for recipe in recipes), records.find_results(results)
    if not os.environ.get(READ_ONLY):
        sharding.use_compilation_cache()
        records.commit()  # of the code that trains: it may be another one by the end
        absent = [recipe for recipe in recipes if records.load(_place(folder, recipe)) is None]
        for _, group in itertools.groupby(absent, lambda recipe: (recipe.policy, recipe.epochs)):
            _train(list(group), folder, mock)
    return records.read(results, mock=mock)


def pictures(runs: pd.DataFrame, results: weights.File | None = None) -> dict[str, np.ndarray]:
    """By policy, how the first of its runs segments the first test scenes: classes (`PICTURED`, CANVAS, CANVAS)."""
    first = runs.drop_duplicates("policy").set_index("policy")
    paths = records.find_results(results) / first["study"] / first["run_id"] / "maps.png"
    return {policy: np.stack(np.split(np.asarray(Image.open(path)), PICTURED)) for policy, path in paths.items()}


def scores(logits: np.ndarray, truth: np.ndarray, expected: np.ndarray | None = None) -> dict[str, float]:
    """As `metrics.metrics`, over pixels, and `miou`, the mean over classes of intersection by union with the truth.

    Logits (n, height, width, classes) of a network, and `expected` of its teacher; truth is (n, height, width).
    """
    said, labels = logits.reshape(-1, CLASSES), truth.reshape(-1)
    counts = np.bincount(labels * CLASSES + said.argmax(-1), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    both, either = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    known = None if expected is None else expected.reshape(-1, CLASSES)
    return metrics.metrics(said, labels, known) | {"miou": float((both[either > 0] / either[either > 0]).mean())}


def _place(folder: Path, recipe: Recipe) -> Path:
    return folder / recipe.study / recipe.run_id(weights.sha256(TEACHER) if recipe.has_teacher else "")


def _train(group: Sequence[Recipe], folder: Path, mock: bool) -> None:
    """Teaches students of one policy and length together, and writes the record of each."""
    lead, began, judge = group[0], time.perf_counter(), None if group[0].variant == "teacher" else dense.teacher()
    ask = judge if lead.has_teacher else None
    splits = {"train": "teacher" if lead.variant == "teacher" else "train", "validation": "validation", "test": "test"}
    data = {split: dense.scenes(name, 32 if mock else SCENES[name], mock=mock) for split, name in splits.items()}
    data["crops"] = dense.cropped(data["test"], lead)
    images, net, rows = data["train"].images, dense.network(lead.student), [list[records.Row]() for _ in group]
    total, fixed = lead.steps(len(images)), views.policy(lead.policy).relation == "fixed"
    asked = {split: each for split, each in data.items() if fixed or split != "train"}
    expected = {split: _answers(judge, each.images) for split, each in asked.items()} if judge else {}
    show = jax.jit(functools.partial(dense.targets, lead, ask=ask))  # views are drawn and the teacher is asked once
    learn, settings = step.learn(net, lead), step.Settings.of(lead, total)
    states = [step.initial_state(net, recipe.seed, (VIEW, VIEW, 1), optimizer=lead.optimizer) for recipe in group]
    reports = {round(total * (number + 1) / lead.evaluations) for number in range(lead.evaluations)}
    key = jax.random.key(lead.order_seed)
    batches = sampler.batches(len(images), seed=lead.order_seed, batch_size=lead.batch_size, start_step=0)
    for done, indices in enumerate(itertools.islice(batches, total), 1):
        known = expected["train"][indices] if fixed else None
        known = known if ask else np.eye(CLASSES, dtype=np.float32)[data["train"].truth[indices]]
        shown, wanted, counted = show(jax.random.fold_in(key, done), images[indices], known)
        batch = step.Batch(shown, wanted, weights=counted)
        states = [learn(state, settings, batch) for state in states]
        if done not in reports:
            continue
        for own, state in zip(rows, states, strict=True):
            row = {"step": done, "epoch": done * lead.batch_size / len(images)}
            row["loss"] = float(state.loss_sum) / (done - (own[-1]["step"] if own else 0))
            own.append(row | _judged(net, state.variables, "validation", data, expected)[0])
        states = [state._replace(loss_sum=jnp.zeros(())) for state in states]
        logger.info("%s %s: step %d/%d, loss %.3f", lead.study, lead.policy, done, total, rows[0][-1]["loss"])
    about = _about(lead, total, time.perf_counter() - began, data) | {"students_per_step": len(group), "mock": mock}
    for recipe, own, state in zip(group, rows, states, strict=True):
        result, maps = _judged(net, state.variables, "test", data, expected)
        result |= _judged(net, state.variables, "crops", data, expected)[0] | {"train_loss": own[-1]["loss"]}
        place, tree = _place(folder, recipe), weights.pack(jax.device_get(state.variables))
        weights.save_npz(place / "student.npz", tree, {"model": recipe.student})
        _write(place, recipe, about | {"result": result}, own, maps)


def _answers(ask: Ask, images: np.ndarray) -> np.ndarray:
    """Logits of whole scenes, in parts of which the last is filled up."""
    parts = sharding.in_parts(images, 50)
    return np.concatenate([np.asarray(ask(views.normalize(part))) for part in parts])[: len(images)]


def _judged(
    net: Dense, variables: models.Variables, split: str, data: dict[str, Scenes], expected: dict[str, np.ndarray]
) -> tuple[records.Row, np.ndarray]:
    """Scores on the whole scenes of a split, under their names in records, and the classes of the first ones."""
    logits = _answers(functools.partial(_program(net), variables), data[split].images)
    own = scores(logits, data[split].truth, expected.get(split))
    return {f"{split}_{name}": value for name, value in own.items()}, logits[:PICTURED].argmax(-1)


@functools.cache
def _program(net: Dense) -> Callable[[models.Variables, jax.Array], jax.Array]:
    return jax.jit(functools.partial(models.logits, net))


def _about(recipe: Recipe, steps: int, seconds: float, data: dict[str, Scenes]) -> records.Record:
    """What the records of students that were trained together have in common."""
    digest = hashlib.sha256(b"".join(each.images.tobytes() + each.truth.tobytes() for each in data.values()))
    about: records.Record = {"steps": steps, "resumed": 0, "wall_seconds": round(seconds, 2)}
    about["images_per_second"] = round(steps * recipe.batch_size / seconds, 1)
    return about | {"data": digest.hexdigest()[:16]}


def _write(place: Path, recipe: Recipe, about: records.Record, rows: list[records.Row], maps: np.ndarray) -> None:
    """Writes a run's pictures and, when all else lies there, its record: what has one is not trained again."""
    teacher = {"name": recipe.teacher, "sha256": weights.sha256(TEACHER)} if recipe.has_teacher else None
    about = about | {"run_id": place.name, "study": recipe.study, "teacher": teacher}
    picture = io.BytesIO()
    Image.fromarray(maps.astype(np.uint8).reshape(-1, CANVAS)).save(picture, "PNG")
    weights.write_atomically(place / "maps.png", picture.getvalue())
    records.write(place, about | {"recipe": dataclasses.asdict(recipe)} | records.environment(), rows)
