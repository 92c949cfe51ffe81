"""One student in training: its state, its rows of metrics, its folder, and how it ends."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models, optim, records, weights
from distill_lib.errors import DistillError
from distill_lib.evaluation import metrics, predict
from distill_lib.log import logger
from distill_lib.train import checkpoint
from distill_lib.train.state import State, gathered, spread
from distill_lib.train.task import RUN, SPLITS, Task


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: content of run.json.
        rows: content of metrics.csv.
        variables: the student as `models.logits` wants it, arrays of NumPy; empty where only the record was kept.
        directory: where the record lies.
        reused: whether it was finished before and only read now.
    """

    record: dict[str, Any]
    rows: list[dict[str, Any]]
    variables: dict[str, Any]
    directory: Path
    reused: bool

    @property
    def reference(self) -> str:
        """The run's name as a recipe's `start`, for a student that continues it."""
        return f"{RUN}{self.record['study']}/{self.record['run_id']}"


@dataclass
class StudentRun:
    """One student in training.

    Attributes:
        task: what it learns, and from whom.
        directory: folder of its record.
        state: after the newest step.
        rows: of metrics.csv so far.
        start: steps that were done when this process took it up.
        seconds: that earlier processes spent on it.
        resumed: how often it was taken up again.
        error: why it stopped before the end, if it did.
        began: when this process took it up, in `time.perf_counter` seconds.
    """

    task: Task
    directory: Path
    state: State
    rows: list[dict[str, Any]] = field(default_factory=list)
    start: int = 0
    seconds: float = 0.0
    resumed: int = 0
    error: DistillError | None = None
    began: float = field(default_factory=time.perf_counter)

    def learns(self, step: int) -> bool:
        """Whether it takes part in a step (counted from 1): it may be ahead of the others, or have stopped."""
        return self.error is None and self.start < step

    def report(self) -> None:
        """Adds a row of metrics; a loss or logits that are not finite end this run and are kept as its `error`."""
        task, recipe = self.task, self.task.recipe
        done = int(self.state.step)
        loss = float(self.state.loss_sum) / (done - (self.rows[-1]["step"] if self.rows else 0))
        if not np.isfinite(loss):
            if task.teacher:
                task.teacher_logits("validation")  # which tells where the teacher is the cause
            self._diverged(f"the loss is {loss}")
            return
        schedule = optim.multiplier(recipe.schedule, task.total_steps, recipe.warmup_steps)
        row = {
            "step": done,
            "epoch": done * recipe.batch_size / len(task.train),
            "loss": loss,
            "learning_rate": float(recipe.learning_rate * schedule(jnp.asarray(done))),
        }
        try:
            self.rows.append(row | evaluate(task, self.state.variables, "validation"))
        except predict.NotFiniteError:  # the loss is that before the last update, which has spoilt the parameters
            self._diverged("the student's logits are not finite")
            return
        self.state = self.state._replace(loss_sum=jnp.zeros_like(self.state.loss_sum))

    def save(self) -> None:
        """Writes a training checkpoint, from which `take_up` goes on."""
        jax.block_until_ready(self.state)
        weights.write_atomically(self.directory / "metrics.csv", records.to_csv(self.rows))
        facts = {"seconds": self._spent(), "resumed": self.resumed}
        state = gathered(self.state, self.task.recipe.optimizer)
        checkpoint.save(self.directory / "checkpoint", int(state.step), state, facts)

    def finish(self, students_per_step: int, bad_images: int | None = None) -> Run | DistillError:
        """Evaluates the student on all splits, and writes its parameters and its record.

        Args:
            students_per_step: students that were taught together.
            bad_images: broken images that this process met, where they were decoded on the way.

        Returns:
            The run; or this run's `error` and nothing written, where logits are not finite.
        """
        task, seconds = self.task, self._spent()
        variables = self.state.variables
        result = {"train_loss": self.rows[-1]["loss"]}
        try:
            for split in SPLITS:
                result |= evaluate(task, variables, split)
        except predict.NotFiniteError:
            return self._diverged("the student's logits are not finite")
        result |= similarity(task, variables)
        variables = jax.device_get(variables)
        metadata = {"model": task.recipe.student, "dataset": task.recipe.dataset, "run_id": task.run_id}
        weights.save_npz(self.directory / "student.npz", weights.pack(variables), metadata)
        timing = {
            "steps": task.total_steps,
            "wall_seconds": round(seconds, 2),
            "images_per_second": round(task.total_steps * task.recipe.batch_size / seconds, 1),
            "students_per_step": students_per_step,
            "resumed": self.resumed,
        } | ({} if bad_images is None else {"bad_images": bad_images})
        timing |= {
            f"{split}_bad_images": len(eval_set.split.bad)
            for split, eval_set in task.eval_sets.items()
            if eval_set.split.bad is not None
        }
        record = records.describe(
            task.recipe, run_id=task.run_id, mock=task.mock, result=result, timing=timing, teacher=_teacher(task)
        )
        records.write(self.directory, record, self.rows)
        _tidy(self.directory)
        return Run(record, self.rows, variables, self.directory, False)

    def _diverged(self, what: str) -> DistillError:
        """Ends this run; returns its `error`."""
        self.error = DistillError(
            f"{self.task.run_id}: {what} by step {int(self.state.step)}; lower learning_rate "
            f"(now {self.task.recipe.learning_rate:g}) or raise warmup_steps. No record was written."
        )
        return self.error

    def _spent(self) -> float:
        return self.seconds + time.perf_counter() - self.began


def _teacher(task: Task) -> dict[str, Any] | None:
    """What the record says of the teacher, and of its soft labels where they were stored."""
    if task.teacher is None:
        return None
    teacher = {"name": task.teacher.name, "sha256": task.teacher.sha256}
    if task.store is None:
        return teacher
    stored = {"kept": task.store.kept, "bytes_per_view": round(task.store.bytes_per_view, 2)}
    return teacher | {"stored": stored | {"bytes": task.store.header["bytes"], "views": task.store.header["views"]}}


def take_up(task: Task, directory: Path, mesh: jax.sharding.Mesh) -> StudentRun:
    """Starts a student, or goes on from its newest training checkpoint.

    Args:
        task: what it learns.
        directory: folder of its record.
        mesh: devices along one axis "data", on which its state lives (see `state.spread`).

    Raises:
        DistillError: if the checkpoint or the table beside it is damaged.
    """
    weights.write_atomically(directory / "recipe.json", records.to_json(task.recipe))
    optimizer = task.recipe.optimizer
    state = task.initial_state()
    saved = checkpoint.load(directory / "checkpoint", state)
    if saved is None:
        return StudentRun(task, directory, spread(state, optimizer, mesh))
    state, facts = saved
    state = spread(state, optimizer, mesh)
    start = int(state.step)
    rows = [row for row in records.read_rows(directory / "metrics.csv") if row["step"] <= start]
    logger.info("%s: resumed at step %d of %d", task.run_id, start, task.total_steps)
    return StudentRun(task, directory, state, rows, start, facts["seconds"], facts["resumed"] + 1)


def finished(task: Task, directory: Path) -> Run | None:
    """The run, if an earlier process finished it."""
    if (record := records.load(directory)) is None:
        return None
    _tidy(directory)  # the process that wrote the record may have been killed before it came to this
    logger.info("%s: reused, finished on %s", task.run_id, record["date"])
    student = directory / "student.npz"
    variables = weights.unpack(weights.load_npz(student)) if student.is_file() else {}
    return Run(record, records.read_rows(directory / "metrics.csv"), variables, directory, True)


def _tidy(directory: Path) -> None:
    """Removes what a finished run needs no more, and what kills left."""
    for leftover in (directory / "recipe.json", *weights.unfinished(directory)):
        with contextlib.suppress(OSError):  # of a folder that may only be read
            leftover.unlink(missing_ok=True)
    checkpoint.drop(directory / "checkpoint")


def similarity(task: Task, variables: models.Variables) -> dict[str, float]:
    """Linear CKA between the student's features and its teacher's on validation and test; left out where undefined."""
    splits = ("validation", "test") if task.teacher and task.teacher.has_features else ()
    pairs = {split: (task.features(variables, split), task.teacher_features(split)) for split in splits}
    values = {
        f"{split}_cka": metrics.linear_cka(*task.eval_sets[split].sound(*features)) for split, features in pairs.items()
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


def evaluate(task: Task, variables: models.Variables, split: str) -> dict[str, float]:
    """Metrics of a student on the sound images of a split, and its fidelity to the teacher if it has one."""
    eval_set, expected = task.eval_sets[split], task.teacher_logits(split) if task.teacher else None
    labels = None if split == "train" and task.recipe.transfer_set else eval_set.labels
    values = metrics.metrics(*eval_set.sound(task.logits(variables, split), labels, expected))
    return {f"{split}_{name}": value for name, value in values.items()}
