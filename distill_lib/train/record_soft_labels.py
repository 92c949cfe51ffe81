"""Storing soft labels: the batches of a schedule are made once, and what the teacher says is kept.

`distill soft-labels FOLDER --keep 10 -p policy mix` goes on where it was stopped, and after more `epochs` adds what is
missing. Students replay the folder: `train.fit(recipe, replay=FOLDER)`, or the parameter `replay` of notebooks.
"""

import contextlib
import functools
import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from distill_lib import sharding
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.teachers import soft_labels
from distill_lib.teachers.soft_labels import Store
from distill_lib.train import checkpoint, processes
from distill_lib.train.progress import Progress
from distill_lib.train.setup import prepare
from distill_lib.train.task import Task

REPORT_SECONDS = 10

Item = TypeVar("Item")


def store(
    recipe: Recipe, folder: str | os.PathLike[str], kept: int, *, loading: str = "auto", workers: int | None = None
) -> Store:
    """Makes every batch of a schedule once, and keeps the teacher's soft labels, `kept` logits of each, in a folder.

    Of the recipe's student nothing matters but `resolution`; a folder that was begun for the same views is completed.
    `loading` and `workers` are as in `setup.prepare`. DistillError if there is nothing to store, or the folder holds
    something else or cannot be written.
    """
    if kept < 1:
        raise DistillError(f"at least 1 logit of each has to be kept, got {kept}.")
    processes.start()
    sharding.use_compilation_cache()
    task = processes.together(lambda: prepare(recipe, loading=loading, workers=workers))
    if not task.asks_teacher:
        raise DistillError(
            f"policy {recipe.policy} asks no teacher in its steps: there is nothing to store. Choose same/ic, mix or "
            "another policy whose teacher sees every view."
        )
    kept = min(kept, task.num_classes)
    facts = task.batch_facts(tempered=kept < task.num_classes)
    sizes = {"num_classes": task.num_classes, "batch_size": recipe.batch_size}
    with contextlib.ExitStack() as held:
        processes.from_first(lambda: held.enter_context(checkpoint.alone(Path(folder))))
        begin = lambda: soft_labels.begin(folder, facts, kept, steps=task.total_steps, **sizes)  # noqa: E731
        return _completed(processes.from_first(begin), task)


def _completed(begun: Store, task: Task) -> Store:
    mesh = sharding.data_mesh()
    recipe, total, reported = task.recipe, task.total_steps, time.perf_counter()
    with (
        contextlib.closing(task.batches(begun.steps, mesh)) as given,
        contextlib.closing(Progress(str(begun.folder), total, recipe.batch_size, begun.steps)) as progress,
    ):
        keep = functools.partial(soft_labels.keep, kept=begun.kept, temperature=recipe.temperature)
        left, shard_steps = itertools.islice(given, total - begun.steps), begun.shard_steps
        soft = (  # a shard holds the mean pixels of its first step
            (keep(batch.targets), None if number % shard_steps else soft_labels.mean_pixels(batch.images))
            for number, batch in enumerate(left)
        )
        made = fetched(soft, sharding.most_ahead())
        while begun.steps < total:
            labels, means = zip(*itertools.islice(made, begun.shard_steps), strict=True)
            begun = processes.from_first(functools.partial(begun.add, list(labels), means[0]))
            if time.perf_counter() - reported > REPORT_SECONDS or begun.steps == total:
                reported = time.perf_counter()
                progress.report(begun.steps)
    return begun


def fetched(given: Iterable[Item], ahead: int) -> Iterator[Item]:
    """Brings trees of arrays from the device, each when `ahead` later ones were begun, so that it is never idle."""
    waiting: deque[Item] = deque()
    for item in given:
        waiting.append(item)
        if len(waiting) > ahead:
            yield sharding.fetch(waiting.popleft())
    yield from (sharding.fetch(item) for item in waiting)
