"""Dense students as tasks of `train`: targets are maps, which move with the crop, and pixels are judged."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import segmentation
from jax.random import fold_in
from jax.sharding import Mesh
from PIL import Image
from segmentation import CANVAS, CLASSES, SCENES, TEACHER, Dense, Scenes

from distill_lib import datasets, models, records, sharding, train, views, weights
from distill_lib.evaluation import metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline import sampler
from distill_lib.input_pipeline.splits import InMemory
from distill_lib.recipes import Recipe
from distill_lib.train import step
from distill_lib.train.task import Task

if TYPE_CHECKING:
    import pandas as pd

PICTURED = 4  # test scenes whose segmentation is kept beside a record, in `MAPS`
MAPS = "maps.png"
CODE = hashlib.sha256(b"".join(Path(file).read_bytes() for file in (segmentation.__file__, __file__))).hexdigest()[:16]
"""Digest of the task's own files, which that of the library leaves out."""
_logits = jax.jit(models.logits, static_argnums=0)


def run(recipes: Sequence[Recipe], results: weights.File | None = None, **options: Any) -> pd.DataFrame:
    """Trains what a plan lacks, or where `DISTILL_READ_ONLY` is set only reads; options are those of `train.sweep`.

    Returns all records of the results folder, as `records.read`, and raises as both; a run that fails alone is told.
    """
    folder = records.find_results(results)
    absent = [recipe for recipe in recipes if not _finished(folder, recipe)]
    if absent and not os.environ.get(READ_ONLY):
        for each in train.finished(train.sweep(absent, folder, make=prepare, **options)):
            _keep_maps(prepare(Recipe(**each.record["recipe"])), each)
    return records.read(results, mock=any(recipe.variant == "smoke" for recipe in recipes))


def pictures(runs: pd.DataFrame, results: weights.File | None = None) -> dict[str, np.ndarray]:
    """By policy, how the first of its runs segments the first test scenes: classes (`PICTURED`, CANVAS, CANVAS)."""
    first = runs.drop_duplicates("policy").set_index("policy")
    paths = records.find_results(results) / first["study"] / first["run_id"] / MAPS
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


@dataclass(frozen=True, kw_only=True)
class DenseTask(Task):
    """A task of scenes; public names as of `Task`."""

    scenes: dict[str, Scenes]  #: by split, and "crops" of those of the test

    @property
    def student(self) -> Dense:
        """The module that is trained."""
        return segmentation.network(self.recipe.student)

    def batches(self, start: int, mesh: Mesh) -> Generator[step.Batch, None, None]:
        """Its batches from a step on, endless: views are drawn, and the teacher is asked once for all students."""
        recipe, (images, truth), seed = self.recipe, self.scenes["train"], self.recipe.order_seed
        ask, key = self.teacher.logits if self.teacher else None, jax.random.key(seed)
        fixed = self.output("train") if self.teacher and not self.asks_teacher else None
        show = jax.jit(lambda number, seen, known: segmentation.targets(recipe, fold_in(key, number), seen, known, ask))
        drawn = sampler.batches(len(images), seed=seed, batch_size=recipe.batch_size, start_step=start)
        for number, indices in enumerate(drawn, start + 1):
            known = None if fixed is None else fixed[indices]
            known = known if ask else np.eye(CLASSES, dtype=np.float32)[truth[indices]]
            given = sharding.put((images[indices], known), sharding.split(mesh))
            shown, wanted, counted = show(np.int32(number), *given)
            yield step.Batch(shown, wanted, weights=counted)

    def output(self, split: str, variables: models.Variables | None = None, kind: str = "logits") -> np.ndarray:
        """Logits (n, height, width, classes) of the scenes of a split, of a student or of the teacher."""
        if variables is None:
            return self._once(split, (), lambda: self._said(split, jax.jit(segmentation.teacher().logits)))
        return self._said(split, functools.partial(_logits, self.student, variables))

    def result(self, variables: models.Variables) -> dict[str, float]:
        """What a finished student's record says of it: how it does on whole scenes, and on crops of them."""
        return self.evaluate(variables, "test") | self.evaluate(variables, "crops")

    def evaluate(self, variables: models.Variables, split: str) -> dict[str, float]:
        """Scores on a split, beside the teacher also where a student learns from labels."""
        beside = dataclasses.replace(self, teacher=segmentation.teacher())
        expected = None if self.recipe.variant == "teacher" else beside.output(split)
        own = scores(self.output(split, variables), self.scenes[split].truth, expected)
        return {f"{split}_{name}": value for name, value in own.items()}

    def _said(self, split: str, ask: segmentation.Ask) -> np.ndarray:
        images = self.scenes[split].images
        parts = sharding.in_parts(images, 50)  # of which the last is filled up
        return np.concatenate([sharding.fetch(ask(views.normalize(part))) for part in parts])[: len(images)]


def prepare(recipe: Recipe, earlier: Sequence[Task] = (), *, results: weights.File | None = None) -> DenseTask:
    """Puts a dense student's task together; of those before it, and of results, it wants nothing."""
    kind = recipe.variant if recipe.variant in ("smoke", "teacher") else ""
    task = _of_scenes(recipe.only(("crop_area",), variant=kind))
    teacher = segmentation.teacher() if recipe.has_teacher else None
    return dataclasses.replace(task, recipe=recipe, code=CODE, teacher=teacher)


@functools.cache
def _of_scenes(recipe: Recipe) -> DenseTask:
    """The task of a recipe that stands for all of equal scenes and crops."""
    mock, first = recipe.variant == "smoke", "teacher" if recipe.variant == "teacher" else "train"
    splits = {"train": first, "validation": "validation", "test": "test"}
    scenes = {
        split: segmentation.scenes(name, 32 if mock else SCENES[name], mock=mock) for split, name in splits.items()
    }
    scenes["crops"] = segmentation.cropped(scenes["test"], recipe)
    sets = {split: EvalSet(InMemory(functools.partial(datasets.Arrays, *each))) for split, each in scenes.items()}
    digest = hashlib.sha256(b"".join(each.images.tobytes() + each.truth.tobytes() for each in scenes.values()))
    card = dataclasses.replace(datasets.get("fashion"), name="scenes", num_classes=CLASSES)
    about: dict[str, Any] = {"recipe": recipe, "dataset": card, "eval_sets": sets, "fingerprint": ""}
    return DenseTask(**about, data=digest.hexdigest()[:16], scenes=scenes)


def _finished(folder: Path, recipe: Recipe) -> bool:
    place = folder / recipe.study / recipe.run_id(weights.sha256(TEACHER) if recipe.has_teacher else "")
    return records.load(place) is not None and (place / MAPS).is_file()


def _keep_maps(task: DenseTask, run: train.Run) -> None:
    """Writes the picture of a finished run, the last of its files."""
    maps, picture = task.output("test", run.variables)[:PICTURED].argmax(-1), io.BytesIO()
    Image.fromarray(maps.astype(np.uint8).reshape(-1, CANVAS)).save(picture, "PNG")
    weights.write_atomically(run.directory / MAPS, picture.getvalue())
