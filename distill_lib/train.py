"""Training: one jitted step, one loop, and a record at the end.

Deliberately absent: data augmentation outside of `views`, labels in the distillation loss, early stopping, weight
averaging, and any randomness that is not a function of (seed, step, position in the batch). So a run that is killed and
started again ends with the same bits on the same machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from distill_lib import checkpoints, datasets, evaluate, loader, losses, models, optim, records, resume, teachers, views
from distill_lib.errors import DistillError
from distill_lib.progress import Progress
from distill_lib.recipes import Recipe

TRAIN_EVALUATION_IMAGES = 10_000


class State(NamedTuple):
    """What a step changes: steps done, parameters, optimiser state and the sum of losses since the last report."""

    step: jax.Array
    params: dict
    opt_state: Any
    loss_sum: jax.Array


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: content of run.json.
        rows: content of metrics.csv.
        params: the student's parameters, nested dict of NumPy arrays.
        directory: where the record lies.
        reused: whether it was finished before and only read now.
    """

    record: dict
    rows: list[dict]
    params: dict
    directory: Path
    reused: bool


@dataclass(frozen=True)
class Task:
    """Everything a run needs, loaded and checked."""

    recipe: Recipe
    data: dict[str, datasets.Arrays]
    num_classes: int
    teacher: teachers.Teacher | None
    total_steps: int

    @property
    def run_id(self) -> str:
        return self.recipe.run_id(self.teacher.sha256 if self.teacher else "")

    @property
    def mock(self) -> bool:
        return self.data["train"].mock


def fit(recipe: Recipe, workdir: str | os.PathLike | None = None, *, checkpoint_seconds: float = 60.0) -> Run:
    """Trains a student, or takes up the run where it was killed, or reuses the finished one.

    Args:
        recipe: what to run.
        workdir: the results folder; None finds it (see `records.find_results`).
        checkpoint_seconds: least time between two training checkpoints.

    Returns:
        The run; its record lies in `workdir/<study>/<run id>/`.

    Raises:
        DistillError: if data, teacher or folder are not usable, or the loss is not finite. Earlier records stay intact.
    """
    task = prepare(recipe)
    root = Path(workdir) if workdir is not None else records.find_results()
    directory = root / recipe.study / task.run_id
    if (record := records.load(directory)) is not None:
        print(f"{task.run_id}: reused, finished on {record['date']}", flush=True)
        params = checkpoints.load_npz(directory / "student.npz") if (directory / "student.npz").is_file() else {}
        return Run(record, records.read_rows(directory / "metrics.csv"), params, directory, True)
    checkpoints.write_atomically(directory / "recipe.json", records.to_json(recipe))
    return _train(task, directory, checkpoint_seconds)


def prepare(recipe: Recipe) -> Task:
    """Loads and checks data and teacher; raises DistillError before anything is computed."""
    dataset, mock = datasets.get(recipe.dataset), recipe.variant == "smoke"
    data = {
        split: datasets.arrays(recipe.dataset, split, recipe.train_images if split == "train" else None, mock=mock)
        for split in ("train", "validation", "test")
    }
    if recipe.batch_size > len(data["train"].labels):
        raise DistillError(
            f"batch_size {recipe.batch_size} is larger than the data ({len(data['train'].labels)} training images); "
            "choose a smaller batch_size."
        )
    if recipe.batch_size % jax.device_count():
        raise DistillError(
            f"batch_size {recipe.batch_size} cannot be shared by {jax.device_count()} devices; choose a multiple."
        )
    teacher = None
    if recipe.has_teacher:
        colours = data["train"].images.shape[-1]
        teacher = teachers.load(
            recipe.teacher, num_classes=dataset.num_classes, colours=colours, resolution=recipe.resolution
        )
    return Task(recipe, data, dataset.num_classes, teacher, recipe.steps(len(data["train"].labels)))


def initial_state(task: Task) -> tuple[State, Any]:
    """Builds the state before the first step and the student's module."""
    recipe = task.recipe
    model = models.create(recipe.student, task.num_classes)
    size, colours = recipe.resolution, task.data["train"].images.shape[-1]
    key = jax.random.fold_in(jax.random.key(recipe.seed), 0)
    params = jax.jit(model.init)(key, jnp.zeros((1, size, size, colours)))["params"]
    opt_state = optimiser(task).init(params)
    return State(jnp.zeros((), jnp.int32), params, opt_state, jnp.zeros(())), model


def optimiser(task: Task) -> Any:
    """The optimiser of a task."""
    recipe = task.recipe
    return optim.adam(
        recipe.learning_rate, recipe.weight_decay, total_steps=task.total_steps, warmup_steps=recipe.warmup_steps
    )


def make_step(task: Task, model: Any) -> Callable[..., State]:
    """Builds the training step, to be jitted.

    Args:
        task: the run.
        model: the student's module.

    Returns:
        A function of (state, images, targets, teacher parameters, indices) to the next state. `images` is the whole
        training set (n, height, width, colours) uint8, `targets` its labels (n,), a fixed teacher's outputs
        (n, classes), or unused; `indices` (batch,) says which images the step uses.
    """
    recipe, policy, teacher = task.recipe, views.policy(task.recipe.policy), task.teacher
    transform = optimiser(task)
    view_key = jax.random.fold_in(jax.random.key(recipe.seed), 1)
    options = {"mixup": recipe.mixup, "area": recipe.crop_area, "whole": recipe.whole}

    def step(state: State, images: jax.Array, targets: jax.Array, teacher_params: dict, indices: jax.Array) -> State:
        key = jax.random.fold_in(view_key, state.step)
        batch = images[indices]
        aspect = images.shape[2] / images.shape[1]
        teacher_view, student_view = views.pair(key, policy, recipe.batch_size, image_aspect=aspect, **options)
        shown = views.render(batch, student_view, recipe.resolution)
        if policy.relation == "none":
            wanted = views.mix(jax.nn.one_hot(targets[indices], task.num_classes), student_view)
        elif policy.relation == "fixed":
            wanted = targets[indices]
        else:
            assert teacher is not None
            same = teacher_view is student_view
            wanted = teacher.logits(
                teacher_params, shown if same else views.render(batch, teacher_view, recipe.resolution)
            )

        def mean_loss(params: dict) -> jax.Array:
            logits = model.apply({"params": params}, shown)
            if policy.relation == "none":
                return losses.cross_entropy(logits, wanted).mean()
            return losses.kl(logits, wanted, temperature=recipe.temperature).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(state.step + 1, params, opt_state, state.loss_sum + loss)

    return step


def _targets(task: Task) -> np.ndarray:
    """What the loss compares with, apart from a live teacher: labels, or the outputs of a fixed teacher."""
    recipe, policy, train = task.recipe, views.policy(task.recipe.policy), task.data["train"]
    if policy.relation != "fixed":
        return train.labels
    assert task.teacher is not None
    return teachers.fixed_logits(
        task.teacher,
        train.images,
        policy,
        resolution=recipe.resolution,
        area=recipe.crop_area,
        crops=recipe.ensemble_crops,
        temperature=recipe.temperature,
    )


def _train(task: Task, directory: Path, checkpoint_seconds: float) -> Run:
    recipe, folder = task.recipe, directory / "checkpoint"
    state, model = initial_state(task)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    state = jax.device_put(state, everywhere)
    rows, start, seconds, resumed = [], 0, 0.0, 0
    if (found := resume.load(folder, state)) is not None:
        state, facts = found
        start, seconds, resumed = int(state.step), facts["seconds"], facts["resumed"] + 1
        rows = [row for row in records.read_rows(directory / "metrics.csv") if row["step"] <= start]
        print(f"{task.run_id}: resumed at step {start} of {task.total_steps}", flush=True)

    judge = _Judge(task, model)
    constants = jax.device_put(
        (task.data["train"].images, _targets(task), task.teacher.params if task.teacher else {}), everywhere
    )
    step = jax.jit(make_step(task, model), donate_argnums=0)
    reports = {round(task.total_steps * (i + 1) / recipe.evaluations) for i in range(recipe.evaluations)}
    batches = loader.batches(
        len(task.data["train"].labels), seed=recipe.seed, batch_size=recipe.batch_size, start_step=start
    )
    progress = Progress(task.run_id, task.total_steps, recipe.batch_size, start)
    began = saved = time.perf_counter()
    for done, indices in zip(range(start + 1, task.total_steps + 1), batches, strict=False):
        state = step(state, *constants, jax.device_put(indices, split))
        if done in reports:
            rows.append(_report(task, judge, state, rows))
            progress.report(done, rows[-1]["loss"])
            state = state._replace(loss_sum=jnp.zeros_like(state.loss_sum))
        if time.perf_counter() - saved > checkpoint_seconds and done < task.total_steps:
            jax.block_until_ready(state)
            checkpoints.write_atomically(directory / "metrics.csv", records.to_csv(rows))
            spent = seconds + time.perf_counter() - began
            resume.save(folder, done, state, {"seconds": spent, "resumed": resumed})
            saved = time.perf_counter()
    progress.close()
    seconds += time.perf_counter() - began
    return _finish(task, judge, directory, jax.device_get(state.params), rows, seconds, resumed)


def _report(task: Task, judge: _Judge, state: State, rows: list[dict]) -> dict:
    """One row of metrics.csv; raises DistillError if the loss is not finite."""
    step = int(state.step)
    loss = float(state.loss_sum) / (step - (rows[-1]["step"] if rows else 0))
    if not np.isfinite(loss):
        raise DistillError(
            f"{task.run_id}: the loss is {loss} by step {step}; lower learning_rate (now {task.recipe.learning_rate:g}) "
            "or raise warmup_steps. No record was written."
        )
    recipe = task.recipe
    schedule = optim.warmup_cosine(task.total_steps, recipe.warmup_steps)
    return {
        "step": step,
        "epoch": step * recipe.batch_size / len(task.data["train"].labels),
        "loss": loss,
        "learning_rate": float(recipe.learning_rate * schedule(jnp.asarray(step))),
    } | judge.metrics(state.params, "validation")


def _finish(
    task: Task, judge: _Judge, directory: Path, params: dict, rows: list[dict], seconds: float, resumed: int
) -> Run:
    result = {"train_loss": rows[-1]["loss"]}
    for split in ("train", "validation", "test"):
        result |= judge.metrics(params, split)
    metadata = {"model": task.recipe.student, "dataset": task.recipe.dataset, "run_id": task.run_id}
    checkpoints.save_npz(directory / "student.npz", params, metadata)
    timing = {
        "steps": task.total_steps,
        "wall_seconds": round(seconds, 2),
        "images_per_second": round(task.total_steps * task.recipe.batch_size / seconds, 1),
        "resumed": resumed,
    }
    teacher = {"name": task.teacher.name, "sha256": task.teacher.sha256} if task.teacher else None
    record = records.describe(
        task.recipe, run_id=task.run_id, mock=task.mock, result=result, timing=timing, teacher=teacher
    )
    records.write(directory, record, rows)
    (directory / "recipe.json").unlink(missing_ok=True)
    resume.drop(directory / "checkpoint")
    return Run(record, rows, params, directory, False)


class _Judge:
    """Evaluates the student on a split; the teacher's outputs on it are computed once."""

    def __init__(self, task: Task, model: Any) -> None:
        self._task, self._teacher_logits = task, {}
        self._student = self._predictor(lambda params, images: model.apply({"params": params}, images))

    def _predictor(self, logits: Callable) -> Callable:
        recipe = self._task.recipe
        return evaluate.predictor(logits, resolution=recipe.resolution, side=recipe.eval_side)

    def metrics(self, params: dict, split: str) -> dict[str, float]:
        images, labels = self._task.data[split][:2]
        images, labels = images[:TRAIN_EVALUATION_IMAGES], labels[:TRAIN_EVALUATION_IMAGES]
        teacher = self._task.teacher
        if teacher is not None and split not in self._teacher_logits:
            self._teacher_logits[split] = self._predictor(teacher.logits)(teacher.params, images)
        found = evaluate.metrics(self._student(params, images), labels, self._teacher_logits.get(split))
        return {f"{split}_{name}": value for name, value in found.items()}
