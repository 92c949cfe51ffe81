"""A task is put together: what a recipe names is loaded and checked before anything is computed."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from distill_lib import datasets, models, records, teachers, views, weights
from distill_lib.errors import DistillError, logger, unknown
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline import stream
from distill_lib.input_pipeline.splits import InMemory, Split, Streamed
from distill_lib.recipes import Recipe
from distill_lib.teachers import published, soft_labels
from distill_lib.train.task import RUN, SIDES, SPLITS, Task

LOADING = ("auto", "device", "stream")
CANVAS_PER_VIEW = 2  # times a view's side: images that are shrunk to no more than that are streamed instead
TRAIN_EVALUATION_IMAGES = 10_000  # of the training split, that students are judged by
DATA_FIELDS = ("dataset", "variant", "train_images", "eval_side", "transfer_set")
TEACHER_FIELDS = ("teacher", "resolution", "ensemble", "dtype")
_say_once = functools.cache(logger.info)
_OF_PROBABILITIES = ("kl", "hard")  # distances that need no more of an answer than what is stored


def prepare(
    recipe: Recipe,
    earlier: Sequence[Task] = (),
    *,
    loading: str = "auto",
    workers: int | None = None,
    results: str | os.PathLike[str] | None = None,
    on_bad_image: str = stream.ON_BAD_IMAGE[0],
    replay: str | os.PathLike[str] | None = None,
) -> Task:
    """Loads and checks data and teacher, or takes them of `earlier` tasks; nothing is computed.

    `loading` is "device" (all images in memory), "stream" (decoded on the way, by `workers` threads, None for one a
    core) or "auto": streams what is too large for memory, or would lie there too small for the resolution, and says so.
    `on_bad_image` is as in `stream.batches`; in memory a broken image always stops the run. `results` is for a student
    that continues a run. `replay` is a folder of stored soft labels, instead of asking the teacher in the steps.
    DistillError where something is not, or not right.
    """
    if on_bad_image not in stream.ON_BAD_IMAGE:
        raise unknown("on_bad_image", on_bad_image, stream.ON_BAD_IMAGE)
    stream.crew(workers)  # tells a bad number now
    dataset = datasets.get(recipe.dataset)
    transfer = datasets.get(recipe.transfer_set) if recipe.transfer_set else dataset
    student = models.create(recipe.student, dataset.num_classes, recipe.dtype)
    shape = (recipe.resolution, recipe.resolution, dataset.channels)
    models.shapes(student, shape)  # tells a bad size before images are decoded
    _check_size(recipe, transfer)
    streams, reason = _streams(recipe, (dataset, transfer), loading)
    alike = (task for task in earlier if _same(recipe, task.recipe, DATA_FIELDS) and streams == task.train.streamed)
    if (task := next(alike, None)) is None:
        _say_once("%s", f"{transfer.name}: images are {'decoded on the way' if streams else 'in memory'}: {reason}.")
        task = _opened(recipe, dataset, transfer, streams, {"workers": workers, "on_bad_image": on_bad_image})
    path = _start(recipe, results)
    task = dataclasses.replace(
        task,
        recipe=recipe,
        teacher=_teacher(recipe, dataset, earlier),
        start=published.load(path, student, shape, replace_head=True) if path else None,
        start_sha256=weights.sha256(path) if path else "",
        store=None,
    )
    return task if replay is None and recipe.stored is None else _replaying(task, replay)


def _opened(
    recipe: Recipe, dataset: datasets.Dataset, transfer: datasets.Dataset, streams: bool, decoding: dict[str, Any]
) -> Task:
    mock = recipe.variant == "smoke"
    splits: dict[str, Split] = {}
    for split in SPLITS:
        own: dict[str, Any] = {"split": split, "mock": mock, "channels": dataset.channels}
        own |= {"name": transfer, "limit": recipe.train_images} if split == "train" else {"name": dataset}
        if streams:
            splits[split] = Streamed(datasets.load(**own), **decoding)
            continue
        splits[split] = resident = InMemory(functools.partial(datasets.arrays, **own))
        if split == "train" or dataset.origin != "embedded":  # the package's own are read when they are due
            _ = resident.arrays  # a broken image stops a run before it trains
    cards = {card.name: card for card in (dataset, transfer)}.values()
    limits = {"train": TRAIN_EVALUATION_IMAGES}
    return Task(
        recipe=recipe,
        dataset=dataset,
        eval_sets={name: EvalSet(split, recipe.eval_side, limits.get(name)) for name, split in splits.items()},
        fingerprint="".join(map(datasets.fingerprint, cards)),
        data="".join(datasets.digest(card, mock=mock) for card in cards),
    )


def _teacher(recipe: Recipe, dataset: datasets.Dataset, earlier: Sequence[Task]) -> teachers.Teacher | None:
    if not recipe.has_teacher:
        return None
    alike = (task.teacher for task in earlier if _same(recipe, task.recipe, DATA_FIELDS + TEACHER_FIELDS))
    return next(filter(None, alike), None) or teachers.load(
        recipe.teacher,
        num_classes=dataset.num_classes,
        channels=dataset.channels,
        resolution=recipe.resolution,
        ensemble=recipe.ensemble,
        dtype=recipe.dtype,
    )


def _start(recipe: Recipe, results: str | os.PathLike[str] | None) -> Path | None:
    name = recipe.start
    if name is None:
        return None
    of_run = Path(results or records.find_results(), name.removeprefix(RUN), "student.npz")
    path = of_run if name.startswith(RUN) else teachers.resolve(name)
    if not path.is_file():
        raise DistillError(
            f"{name} has no student at {path}: train that run first (where its record came without a student, in "
            "another folder, as in `-p results again`), or name a checkpoint."
        )
    held = weights.load_metadata(path).get("model", recipe.student)
    if held != recipe.student:
        raise DistillError(f"start {name} holds {held}, not {recipe.student}: choose student {held}, or no start.")
    return path


def _replaying(task: Task, folder: str | os.PathLike[str] | None) -> Task:
    recipe = task.recipe
    if folder is None:
        raise DistillError(f"stored = {recipe.stored} wants stored soft labels: name their folder (replay).")
    if not task.asks_teacher:
        raise DistillError(f"policy {recipe.policy} asks no teacher in its steps: run it without stored soft labels.")
    if recipe.on_divergence == "rewind":
        raise DistillError("soft labels are of batches of which none is skipped: on_divergence rewind has no replay.")
    store = soft_labels.load(folder)
    if recipe.distance not in _OF_PROBABILITIES:
        raise DistillError(
            f"soft labels keep the largest logits up to a constant, which the distance {recipe.distance} cannot do "
            f"with: choose {' or '.join(_OF_PROBABILITIES)}, or ask the teacher in the steps (no replay)."
        )
    if recipe.stored not in (None, store.kept):
        raise DistillError(f"{folder} keeps {store.kept} logits of each answer, not {recipe.stored}: leave out stored.")
    store.require(task.batch_facts(tempered=store.kept < task.num_classes), task.total_steps)
    return dataclasses.replace(task, recipe=dataclasses.replace(recipe, stored=store.kept), store=store)


def _streams(recipe: Recipe, cards: Sequence[datasets.Dataset], loading: str) -> tuple[bool, str]:
    """Whether images are decoded on the way, and why."""
    if loading not in LOADING:
        raise unknown("loading", loading, LOADING)
    policy = views.policy(recipe.policy)
    whole = policy.relation == "fixed" and policy.teacher not in SIDES
    streams, reason = (loading == "stream", "as asked") if loading != "auto" else _chosen(recipe, cards, whole)
    if streams and whole:
        raise DistillError(
            f"policy {recipe.policy} wants the teacher's outputs of many crops of all images beforehand, so they have "
            'to be in memory: choose loading "device" with fewer train_images, or another policy.'
        )
    return streams, reason


def _chosen(recipe: Recipe, cards: Sequence[datasets.Dataset], whole: bool) -> tuple[bool, str]:
    """What "auto" chooses; `whole` where the policy cannot do with a stream."""
    canvas, resolution = datasets.CANVAS, recipe.resolution
    if recipe.variant == "smoke":
        return False, "they are made up"
    if not all(map(datasets.fits, cards)):
        return True, f"decoded they take more than {datasets.MEMORY_LIMIT // 2**30} GiB"
    if canvas > CANVAS_PER_VIEW * resolution or not any(map(datasets.shrunk, cards)):
        return False, f"they are kept as large as views of {resolution} px need them"
    if whole:
        return False, f"policy {recipe.policy} wants them all at once, shrunk to {canvas} px"
    return True, f"shrunk to {canvas} px for memory, crops shown at {resolution} px would lose detail"


def _check_size(recipe: Recipe, transfer: datasets.Dataset) -> None:
    """Raises DistillError if batch or schedule do not fit the training images, as far as known, or the devices."""
    images = datasets.training_images(transfer, recipe.train_images, mock=recipe.variant == "smoke")
    if images is not None:
        recipe.check_length(images)
    if recipe.batch_size % jax.device_count():
        raise DistillError(
            f"batch_size {recipe.batch_size} cannot be shared by {jax.device_count()} devices; choose a multiple."
        )


def _same(recipe: Recipe, other: Recipe, fields: tuple[str, ...]) -> bool:
    return all(getattr(recipe, name) == getattr(other, name) for name in fields)
