"""One student in training: its state, its rows of metrics, its folder, and how it ends."""

import dataclasses
import functools
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models, optim, records, sharding, weights
from distill_lib.errors import DistillError, logger
from distill_lib.evaluation import metrics
from distill_lib.recipes import Recipe
from distill_lib.train import checkpoint, divergence, mirror, processes
from distill_lib.train.step import State
from distill_lib.train.task import RUN, Task
from distill_lib.train.tensorboard import Curves


@dataclass(frozen=True)
class Run:
    """A finished run."""

    record: dict[str, Any]  #: content of run.json
    rows: list[dict[str, Any]]  #: content of metrics.csv
    directory: Path  #: where they lie, and the student beside them
    reused: bool  #: whether it was finished before and only read now

    @functools.cached_property
    def variables(self) -> models.Variables:
        """The student as `models.logits` wants it, before any compression; empty where only the record was kept."""
        path = self.directory / "student.npz"
        return weights.unpack(weights.load_npz(path)) if path.is_file() else {}

    @property
    def reference(self) -> str:
        """The run's name as a recipe's `start`, for a student that continues it."""
        return f"{RUN}{self.record['study']}/{self.record['run_id']}"


@dataclass
class StudentRun:
    """One student in training; it `began` and was `saved` in seconds without the time between processes."""

    task: Task
    directory: Path
    origin: dict[str, Any]  #: what its result depends on
    state: State
    curves: Curves
    rows: list[dict[str, Any]] = field(default_factory=list)
    start: int = 0  #: steps that earlier processes did
    resumed: int = 0
    parts: list[dict[str, Any]] = field(default_factory=list)  #: the steps at which circumstances changed
    kept: State | None = None  #: at the last report, on the host, where the recipe has the run go back
    before: list[list[float]] = field(default_factory=list)  #: loss and gradient of the latest steps, likewise
    rewinds: list[dict[str, Any]] = field(default_factory=list)  #: each time that it went back
    error: DistillError | None = None
    began: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    def learns(self, step: int) -> bool:
        """Whether it takes part in a step (counted from 1): it may be ahead of the others, or have stopped."""
        return self.error is None and self.start < step

    @property
    def skipped(self) -> int:
        """How many batches were skipped: a step is shown the batch that comes so many after its own."""
        return sum(rewind["skipped"] for rewind in self.rewinds)

    def went_back(self) -> bool:
        """Goes back to the last report if the recipe asks for it and the last step went wrong; whether it did."""
        if self.kept is None or len(self.rewinds) == divergence.MOST_REWINDS:
            return False
        last, done = np.asarray(self.state.last).tolist(), int(self.state.step)
        if (problem := divergence.problem(last, self.before)) is None:
            self.before = [*self.before, last][-divergence.STEPS :]
            return False
        self.start = int(self.kept.step)
        self.rewinds.append({"step": done, "back_to": self.start, "skipped": done - self.start, "problem": problem})
        logger.warning("%s: %s in step %d; back to step %d.", self.task.run_id, problem, done, self.start)
        self.state = sharding.on_all_devices(self.kept)
        return True

    def report(self) -> None:
        """Adds a row of metrics; a loss or logits that are not finite end this run and are kept as its `error`."""
        task, recipe = self.task, self.task.recipe
        done = int(self.state.step)
        loss = float(self.state.loss_sum) / (done - (self.rows[-1]["step"] if self.rows else 0))
        if not np.isfinite(loss):
            if task.teacher:
                task.output("validation")  # which tells where the teacher is the cause
            self._diverged(f"the loss is {loss}")
            return
        schedule = optim.multiplier(recipe.schedule, task.total_steps, recipe.warmup_steps)
        row = {
            "step": done,
            "epoch": done * recipe.batch_size / len(task.train),
            "loss": loss,
            **dict(zip(("largest_loss", "largest_gradient"), np.asarray(self.state.largest).tolist(), strict=True)),
            "learning_rate": float(recipe.learning_rate * schedule(jnp.asarray(done))),
        }
        try:
            self.rows.append(row | task.evaluate(self.state.variables, "validation"))
        except metrics.NotFiniteError:  # the loss is that before the last update, which has spoilt the parameters
            self._diverged("the student's logits are not finite")
            return
        self.curves.add(self.rows[-1:])
        loss_sum, largest = map(jnp.zeros_like, (self.state.loss_sum, self.state.largest))
        self.state = self.state._replace(loss_sum=loss_sum, largest=largest)
        self.kept = self.kept and jax.device_get(self.state)

    def save(self) -> None:
        """Writes a training checkpoint, from which `take_up` goes on."""
        facts: dict[str, Any] = {"origin": self.origin, "rows": self.rows, "parts": self.parts}
        facts |= {"seconds": time.perf_counter() - self.began, "resumed": self.resumed}
        facts |= {"before": self.before, "rewinds": self.rewinds}
        checkpoint.save(self.directory, (self.state, self.kept) if self.kept else self.state, facts)
        mirror.push(self.directory, ended=False)
        self.saved = time.perf_counter()

    def finish(self, students_per_step: int, substituted: Collection[int] | None = None) -> Run | DistillError:
        """Evaluates the student, and writes it and its record; gives `error` where logits are not finite."""
        task, recipe, variables = self.task, self.task.recipe, self.state.variables
        seconds = time.perf_counter() - self.began
        try:
            result = {"train_loss": self.rows[-1]["loss"]} | task.result(variables)
        except metrics.NotFiniteError:
            return self._diverged("the student's logits are not finite")
        variables = jax.device_get(variables)
        broken = {"bad_images": substituted}
        broken |= {f"{split}_bad_images": eval_set.split.bad for split, eval_set in task.eval_sets.items()}
        record = {
            "run_id": task.run_id,
            "study": recipe.study,
            "mock": task.mock,
            "teacher": _teacher(task),
            "recipe": dataclasses.asdict(recipe),
            "result": result,
            "steps": task.total_steps,
            "wall_seconds": round(seconds, 2),
            "images_per_second": round(task.total_steps * recipe.batch_size / seconds, 1),
            "students_per_step": students_per_step,
            "resumed": self.resumed,
            "data": self.origin["data"],
            "code": self.origin["code"],
        }
        record |= {name: len(images) for name, images in broken.items() if images is not None}
        record |= {name: parts for name in ("parts", "rewinds") if (parts := getattr(self, name))}
        record = processes.from_first(lambda: self._write(records.environment() | record, variables))
        return Run(record, self.rows, self.directory, reused=False)

    def _write(self, record: records.Record, variables: models.Variables) -> records.Record:
        recipe = self.task.recipe
        metadata = {"model": recipe.student, "dataset": recipe.dataset, "run_id": self.task.run_id}
        if recipe.compression != "none":
            metadata["compression"] = recipe.compression
        weights.save_npz(self.directory / "student.npz", weights.pack(variables), metadata)
        record = records.write(self.directory, record, self.rows)
        checkpoint.tidy(self.directory, weights.unfinished(self.directory))
        mirror.push(self.directory, ended=True)
        return record

    def _diverged(self, what: str) -> DistillError:
        again = f" again, after going back {len(self.rewinds)} times" if self.rewinds else ""
        self.error = DistillError(
            f"{self.task.run_id}: {what} by step {int(self.state.step)}{again}; lower learning_rate "
            f"(now {self.task.recipe.learning_rate:g}) or raise warmup_steps. No record was written."
        )
        return self.error


def _teacher(task: Task) -> dict[str, Any] | None:
    if task.teacher is None:
        return None
    teacher = {"name": task.teacher.name, "sha256": task.teacher.sha256}
    if task.store is None:
        return teacher
    stored = {"kept": task.store.kept, "bytes_per_view": round(task.store.bytes_per_view, 2)}
    return teacher | {"stored": stored | {"bytes": task.store.bytes, "views": task.store.views}}


def origin(task: Task, remat: bool = False) -> dict[str, Any]:
    """What the result of a run depends on, to the last bit; JSON-able."""
    teacher = task.teacher.sha256 if task.teacher else None
    made_of = {"recipe": dataclasses.asdict(task.recipe), "teacher": teacher, "start": task.start_sha256}
    circumstances = records.circumstances()
    code = f"{circumstances['code']} {task.code}".strip()
    return made_of | {"data": task.data, "remat": remat} | circumstances | {"code": code}


def take_up(
    task: Task, directory: Path, mesh: jax.sharding.Mesh, *, remat: bool = False, resume_changed: bool = False
) -> StudentRun:
    """Starts a student, or goes on from its newest checkpoint; DistillError if that is damaged or of another run."""
    now, everywhere = processes.same(origin(task, remat)), sharding.everywhere(mesh)
    state, saved = processes.from_first(lambda: (jax.device_get(task.initial_state()), checkpoint.load(directory)))
    kept = state if task.recipe.on_divergence == "rewind" else None
    if saved is None:
        return StudentRun(task, directory, now, sharding.put(state, everywhere), Curves(directory, []), kept=kept)
    leaves, facts = saved
    _refuse_another(task, directory, facts["origin"]["recipe"], "checkpoint")
    changed = records.differences(facts["origin"], now)
    if changed and not resume_changed:
        raise DistillError(
            f"{directory} was begun otherwise ({records.in_words(changed)}): go on as it was begun, delete the "
            "folder, or say resume_changed=True; the record will tell."
        )
    state, kept = checkpoint.restored(leaves, (state, kept))
    start = int(state.step)
    facts["parts"] += [{"step": start, "changed": changed}] if changed else []
    logger.info("%s: resumed at step %d of %d", task.run_id, start, task.total_steps)
    before = {name: facts[name] for name in ("rows", "parts", "before", "rewinds")}
    before |= {"resumed": facts["resumed"] + 1, "start": start, "began": time.perf_counter() - facts["seconds"]}
    curves = Curves(directory, facts["rows"])
    return StudentRun(task, directory, now, sharding.put(state, everywhere), curves, kept=kept, **before)


def finished(task: Task, directory: Path) -> Run | None:
    """The run, if it was finished here or in the mirror; DistillError if that is damaged, or another of equal name."""
    mirror.fetch(directory)
    if (record := records.load(directory)) is None:
        return None
    _refuse_another(task, directory, record["recipe"], "record")
    if record.get("data", task.data) != task.data:
        raise DistillError(
            f"the record in {directory} is of other data of this name (digest {record['data']}, and now {task.data}): "
            "move that folder away."
        )
    rows = records.read_rows(directory, record)
    # The process that wrote the record may have been killed then; another may be adding to the record now.
    checkpoint.tidy(directory, weights.unfinished(directory, seconds=600))
    Curves(directory, rows).close()
    logger.info("%s: reused, finished on %s", task.run_id, record["date"])
    return Run(record, rows, directory, reused=True)


def _refuse_another(task: Task, directory: Path, recipe: dict[str, Any], what: str) -> None:
    """Raises DistillError where a folder holds the run of another recipe; fields that it lacks have their defaults."""
    given = {item.name: item.default for item in dataclasses.fields(Recipe) if item.default is not dataclasses.MISSING}
    if changed := records.differences(given | recipe, dataclasses.asdict(task.recipe)):
        raise DistillError(
            f"the {what} in {directory} is another run's ({records.in_words(changed)}): move that folder away."
        )
