"""A task is put together: what a recipe names is loaded and checked before anything is computed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax

from distill_lib import (
    archive,
    checkpoints,
    datasets,
    exams,
    fixed,
    models,
    published,
    records,
    stream,
    teachers,
    views,
)
from distill_lib.errors import DistillError, unknown
from distill_lib.recipes import Recipe
from distill_lib.task import RUN, SPLITS, Task

LOADING = ("auto", "device", "stream")
TRAIN_EVALUATION_IMAGES = 10_000  # of the training split, that students are judged by
DATA_FIELDS = ("dataset", "variant", "train_images", "eval_side", "transfer_set")
TEACHER_FIELDS = ("teacher", "resolution", "ensemble", "dtype")


def prepare(
    recipe: Recipe,
    like: Task | None = None,
    *,
    loading: str = "auto",
    workers: int | None = None,
    results: str | os.PathLike | None = None,
    on_bad_image: str = stream.ON_BAD_IMAGE[0],
    replay: str | os.PathLike | None = None,
) -> Task:
    """Loads and checks data and teacher; nothing is computed.

    Args:
        recipe: what shall run.
        like: a task whose data and teacher are taken where they are the same.
        loading: "device" (all images in memory), "stream" (decoded on the way) or "auto" (streams what is too large).
        workers: threads that decode; None takes one for each core.
        results: the results folder, for a student that continues a run in it; None finds it.
        on_bad_image: as in `stream.batches`; in memory a broken image always stops the run.
        replay: folder of a teacher's stored answers, instead of asking it in the steps; the recipe's `stored` follows.

    Raises:
        DistillError: if the recipe asks for what there is not, or for what does not fit together; if the stored answers
            are for another run.
    """
    if on_bad_image not in stream.ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, stream.ON_BAD_IMAGE)
    dataset = datasets.get(recipe.dataset)
    student = models.create(recipe.student, dataset.num_classes, recipe.dtype)
    models.shapes(student, (recipe.resolution, recipe.resolution, dataset.channels))  # told before images are decoded
    if like and _same(recipe, like.recipe, DATA_FIELDS):
        task = dataclasses.replace(like, recipe=recipe, teacher=None, store=None, start=None, start_sha256="")
    else:
        shown = datasets.get(recipe.transfer_set or recipe.dataset)
        task = _with_data(recipe, dataset, _streams(recipe, shown, loading), workers)
        fingerprints = [datasets.fingerprint(one) for one in dict.fromkeys((recipe.dataset, shown.name))]
        task = dataclasses.replace(task, fingerprint="".join(fingerprints), on_bad_image=on_bad_image)
    task = _started(task, results)
    _check(task)
    if not recipe.has_teacher:
        return _replaying(task, replay)
    if like and like.teacher and _same(recipe, like.recipe, DATA_FIELDS + TEACHER_FIELDS):
        return _replaying(dataclasses.replace(task, teacher=like.teacher), replay)
    teacher = teachers.load(
        recipe.teacher,
        num_classes=dataset.num_classes,
        colours=task.colours,
        resolution=recipe.resolution,
        ensemble=recipe.ensemble,
        dtype=recipe.dtype,
    )
    return _replaying(dataclasses.replace(task, teacher=teacher), replay)


def _replaying(task: Task, folder: str | os.PathLike | None) -> Task:
    """The task with the answers that lie in a folder, if one is named."""
    recipe = task.recipe
    if folder is None and recipe.stored is None:
        return task
    if folder is None:
        raise DistillError(f"stored = {recipe.stored} wants stored answers: name their folder as well (replay).")
    if not task.asks_teacher:
        raise DistillError(f"policy {recipe.policy} asks no teacher in its steps: run it without stored answers.")
    store = archive.load(folder)
    if recipe.stored not in (None, store.kept):
        raise DistillError(f"{folder} keeps {store.kept} logits of each answer, not {recipe.stored}: leave out stored.")
    store.require(task.answered(store.kept), task.total_steps)
    return dataclasses.replace(task, recipe=dataclasses.replace(recipe, stored=store.kept), store=store)


def _streams(recipe: Recipe, dataset: datasets.Dataset, loading: str) -> bool:
    """Whether training images are decoded on the way."""
    if loading not in LOADING:
        raise unknown("loading", loading, LOADING)
    large = recipe.variant != "smoke" and not datasets.fits(dataset)
    streams = loading == "stream" or (loading == "auto" and large)
    policy = views.policy(recipe.policy)
    if streams and policy.relation == "fixed" and policy.teacher not in fixed.SIDES:
        raise DistillError(
            f"policy {recipe.policy} wants the teacher's outputs of many crops of all images beforehand, so they have "
            'to be in memory: choose loading "device" with fewer train_images, or another policy.'
        )
    return streams


def _started(task: Task, results: str | os.PathLike | None) -> Task:
    """The task with the variables that its student begins from, if its recipe names some."""
    name = task.recipe.start
    if name is None:
        return task
    if name.startswith(RUN):
        path = Path(results or records.find_results(), name.removeprefix(RUN), "student.npz")
        if not path.is_file():
            raise DistillError(
                f"{name} has no student at {path}: train that run first (where its record came without a student, in "
                "another folder, as in `-p results again`), or name a checkpoint."
            )
    else:
        path = teachers.resolve(name)
    start = published.load(path, task.student, task.image_shape, replace_head=True)
    return dataclasses.replace(task, start=start, start_sha256=checkpoints.sha256(path))


def _with_data(recipe: Recipe, dataset: datasets.Dataset, streams: bool, workers: int | None) -> Task:
    mock, side, classes = recipe.variant == "smoke", recipe.eval_side, dataset.num_classes
    judged = {"train": TRAIN_EVALUATION_IMAGES}
    judged_by: dict[str, exams.Exam] = {}
    options: dict[str, dict] = {split: {"name": recipe.dataset, "mock": mock} for split in SPLITS}
    options["train"]["limit"] = recipe.train_images
    if recipe.transfer_set is not None:
        options["train"] |= {"name": recipe.transfer_set, "channels": dataset.channels}
    if streams:
        opened = {split: datasets.load(split=split, **options[split]) for split in SPLITS}
        for split, source in opened.items():
            judged_by[split] = exams.Decoded(source, side, judged.get(split))
        train = opened["train"]
        return Task(recipe, {}, judged_by, classes, dataset.channels, len(train), None, train, workers, mock)
    data = {split: datasets.arrays(split=split, **options[split]) for split in SPLITS}
    for split, arrays in data.items():
        judged_by[split] = exams.InMemory(arrays, side, judged.get(split))
    examples = len(data["train"].labels)
    return Task(recipe, data, judged_by, classes, dataset.channels, examples, None, None, workers, mock)


def _check(task: Task) -> None:
    """Raises DistillError if batch or schedule do not fit the data or the devices."""
    recipe = task.recipe
    if recipe.batch_size > task.examples:
        raise DistillError(
            f"batch_size {recipe.batch_size} is larger than the data ({task.examples} training images); "
            "choose a smaller batch_size."
        )
    if jax.process_count() > 1:
        raise DistillError("training on several hosts is not supported yet: start one process with all devices of one.")
    if recipe.batch_size % jax.device_count():
        raise DistillError(
            f"batch_size {recipe.batch_size} cannot be shared by {jax.device_count()} devices; choose a multiple."
        )
    recipe.steps(task.examples)


def _same(one: Recipe, other: Recipe, fields: tuple[str, ...]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in fields)
