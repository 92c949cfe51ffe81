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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from distill_lib import checkpoints, datasets, evaluate, loader, models, optim, records, resume, step, teachers, views
from distill_lib.errors import DistillError
from distill_lib.progress import Progress
from distill_lib.recipes import Recipe
from distill_lib.step import Program, Settings, State

TRAIN_EVALUATION_IMAGES = 10_000


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
        """Name of the run."""
        return self.recipe.run_id(self.teacher.sha256 if self.teacher else "")

    @property
    def mock(self) -> bool:
        """Whether the data are made up."""
        return self.data["train"].mock

    def identity(self, split: str) -> tuple:
        """What a frozen teacher's outputs on a split depend on."""
        sha256 = self.teacher.sha256 if self.teacher else ""
        return (sha256, self.recipe.dataset, self.mock, split, len(self.data[split].labels))

    @property
    def program(self) -> Program:
        """What the training step depends on."""
        recipe = self.recipe
        return Program(
            policy=recipe.policy,
            student=models.create(recipe.student, self.num_classes),
            teacher=self.teacher.model if self.teacher and views.policy(recipe.policy).relation != "fixed" else None,
            num_classes=self.num_classes,
            batch_size=recipe.batch_size,
            resolution=recipe.resolution,
            mixup=recipe.mixup,
            crop_area=recipe.crop_area,
            whole=recipe.whole,
        )

    @property
    def settings(self) -> Settings:
        """The numbers that the training step is given."""
        recipe = self.recipe
        return step.settings(
            recipe.seed,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            temperature=recipe.temperature,
            total_steps=self.total_steps,
            warmup_steps=recipe.warmup_steps,
        )


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
    _use_compilation_cache()
    task = prepare(recipe)
    root = Path(workdir) if workdir is not None else records.find_results()
    directory = root / recipe.study / task.run_id
    if (record := records.load(directory)) is not None:
        print(f"{task.run_id}: reused, finished on {record['date']}", flush=True)
        params = checkpoints.load_npz(directory / "student.npz") if (directory / "student.npz").is_file() else {}
        return Run(record, records.read_rows(directory / "metrics.csv"), params, directory, True)
    checkpoints.write_atomically(directory / "recipe.json", records.to_json(recipe))
    return _train(task, directory, checkpoint_seconds)


def _use_compilation_cache() -> None:
    """Keeps compiled programs on disk, unless JAX was told where: a second run starts at once."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "distill_lib" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def prepare(recipe: Recipe) -> Task:
    """Loads and checks data and teacher; raises DistillError before anything is computed."""
    dataset, mock = datasets.get(recipe.dataset), recipe.variant == "smoke"
    models.create(recipe.student, dataset.num_classes)  # an unknown name is told before images are decoded
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


def _targets(task: Task) -> np.ndarray:
    """What the loss compares with, apart from a live teacher: labels, or the outputs of a fixed teacher."""
    recipe, teacher, train = task.recipe, task.teacher, task.data["train"]
    policy = views.policy(recipe.policy)
    if policy.relation != "fixed" or teacher is None:
        return train.labels
    options: dict[str, Any] = {
        "resolution": recipe.resolution,
        "area": recipe.crop_area,
        "temperature": recipe.temperature,
    }
    options["crops"] = recipe.ensemble_crops
    return _once(
        (task.identity("train"), policy, *options.values()),
        lambda: teachers.fixed_logits(teacher, train.images, policy, **options),
    )


def _train(task: Task, directory: Path, checkpoint_seconds: float) -> Run:
    recipe, program, folder = task.recipe, task.program, directory / "checkpoint"
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    image_shape = (recipe.resolution, recipe.resolution, task.data["train"].images.shape[-1])
    state = jax.device_put(step.initial_state(program.student, recipe.seed, image_shape), everywhere)
    rows, start, seconds, resumed = [], 0, 0.0, 0
    if (found := resume.load(folder, state)) is not None:
        state, facts = found
        start, seconds, resumed = int(state.step), facts["seconds"], facts["resumed"] + 1
        rows = [row for row in records.read_rows(directory / "metrics.csv") if row["step"] <= start]
        print(f"{task.run_id}: resumed at step {start} of {task.total_steps}", flush=True)

    teacher_params = task.teacher.params if program.teacher is not None and task.teacher is not None else {}
    constants = (task.settings, task.data["train"].images, _targets(task), teacher_params)
    constants = jax.device_put(constants, everywhere)
    advance = step.compiled(program)
    # Several CPU devices share one pool of threads: where they run ahead, collectives wait for each other for ever.
    in_step = jax.default_backend() == "cpu" and jax.device_count() > 1
    reports = {round(task.total_steps * (i + 1) / recipe.evaluations) for i in range(recipe.evaluations)}
    batches = loader.batches(
        len(task.data["train"].labels), seed=recipe.seed, batch_size=recipe.batch_size, start_step=start
    )
    progress = Progress(task.run_id, task.total_steps, recipe.batch_size, start)
    began = saved = time.perf_counter()
    for done, indices in zip(range(start + 1, task.total_steps + 1), batches, strict=False):
        state = advance(state, *constants, jax.device_put(indices, split))
        if in_step:
            jax.block_until_ready(state)
        if done in reports:
            rows.append(_report(task, state, rows))
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
    return _finish(task, directory, jax.device_get(state.params), rows, seconds, resumed)


def _report(task: Task, state: State, rows: list[dict]) -> dict:
    """One row of metrics.csv; raises DistillError if the loss is not finite."""
    done = int(state.step)
    loss = float(state.loss_sum) / (done - (rows[-1]["step"] if rows else 0))
    if not np.isfinite(loss):
        raise DistillError(
            f"{task.run_id}: the loss is {loss} by step {done}; lower learning_rate "
            f"(now {task.recipe.learning_rate:g}) or raise warmup_steps. No record was written."
        )
    recipe = task.recipe
    schedule = optim.warmup_cosine(task.total_steps, recipe.warmup_steps)
    return {
        "step": done,
        "epoch": done * recipe.batch_size / len(task.data["train"].labels),
        "loss": loss,
        "learning_rate": float(recipe.learning_rate * schedule(jnp.asarray(done))),
    } | _judge(task, state.params, "validation")


def _finish(task: Task, directory: Path, params: dict, rows: list[dict], seconds: float, resumed: int) -> Run:
    result = {"train_loss": rows[-1]["loss"]}
    for split in ("train", "validation", "test"):
        result |= _judge(task, params, split)
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
    for leftover in (directory / "recipe.json", *directory.glob(".*.tmp")):  # a kill may leave half-written files
        leftover.unlink(missing_ok=True)
    resume.drop(directory / "checkpoint")
    return Run(record, rows, params, directory, False)


def _judge(task: Task, params: dict, split: str) -> dict[str, float]:
    """Metrics of the student on a split, and its fidelity to the teacher if it has one."""
    recipe = task.recipe
    images, labels = (array[:TRAIN_EVALUATION_IMAGES] for array in task.data[split][:2])
    student = evaluate.predictor(task.program.student, resolution=recipe.resolution, side=recipe.eval_side)
    expected = _teacher_logits(task, split, images) if task.teacher else None
    found = evaluate.metrics(student(params, images), labels, expected)
    return {f"{split}_{name}": value for name, value in found.items()}


def _teacher_logits(task: Task, split: str, images: np.ndarray) -> np.ndarray:
    recipe, teacher = task.recipe, task.teacher
    assert teacher is not None
    predict = evaluate.predictor(teacher.model, resolution=recipe.resolution, side=recipe.eval_side)
    key = (task.identity(split), recipe.resolution, recipe.eval_side)
    return _once(key, lambda: predict(teacher.params, images))


_TEACHER_OUTPUTS: dict[tuple, np.ndarray] = {}


def _once(key: tuple, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Outputs of a frozen teacher, which are the same in every run of a process."""
    if key not in _TEACHER_OUTPUTS:
        _TEACHER_OUTPUTS[key] = compute()
    return _TEACHER_OUTPUTS[key]
