"""Training: one loop for one student or a sweep of them, and a record for each at the end.

All randomness is a function of (seed, step, position in the batch): a killed run ends with the same bits.
"""

import contextlib
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import records, sharding
from distill_lib.errors import DistillError, logger
from distill_lib.train import checkpoint, processes, step, student
from distill_lib.train.progress import Progress
from distill_lib.train.student import Run, StudentRun
from distill_lib.train.task import Task

CHECKPOINT_SHARE = 0.01  # of a run's time that may go into checkpoints


def train(
    tasks: list[tuple[Task, Path]], *, checkpoint_seconds: float, remat: bool = False, resume_changed: bool = False
) -> list[Run | DistillError]:
    """Teaches students together: every batch is made once, and each student learns from it.

    `tasks` are unfinished, of one `shared_batches`, each with the folder of its record; the options are those of
    `sweep`, but 0 `checkpoint_seconds` save after every step. Returns for each task its run, or the error that ended
    it. DistillError if a checkpoint is damaged or was made otherwise, a folder cannot be written, or is in use.
    """
    records.commit()  # of the code that trains: it may be another one by the end
    mesh = sharding.data_mesh()
    with contextlib.ExitStack() as held:
        processes.from_first(lambda: [held.enter_context(checkpoint.alone(directory)) for _, directory in tasks])
        options: dict[str, bool] = {"remat": remat, "resume_changed": resume_changed}
        runs = [student.take_up(task, directory, mesh, **options) for task, directory in tasks]
        for run in runs:
            held.callback(run.curves.close)
        return _train(runs, mesh, checkpoint_seconds, remat)


def _train(runs: list[StudentRun], mesh: Mesh, checkpoint_seconds: float, remat: bool) -> list[Run | DistillError]:
    everywhere = sharding.everywhere(mesh)
    lead, done = runs[0].task, min(run.start for run in runs)
    settings = [sharding.put(run.task.settings, everywhere) for run in runs]
    learn = [step.learn(run.task.student, run.task.recipe, remat, mesh) for run in runs]
    count, ahead = lead.recipe.evaluations, deque[jax.Array]()
    reports = {round(lead.total_steps * (number + 1) / count) for number in range(count)}
    label = lead.run_id if len(runs) == 1 else f"{len(runs)} students ({lead.recipe.policy})"
    share, spent = CHECKPOINT_SHARE if checkpoint_seconds else float("inf"), 0.0
    began = time.perf_counter()
    with (
        contextlib.closing(lead.batches(done + runs[0].skipped, mesh)) as given,
        contextlib.closing(Progress(label, lead.total_steps, lead.recipe.batch_size, done)) as progress,
    ):
        while done < lead.total_steps:
            batch, done = next(given), done + 1
            for number, run in enumerate(runs):
                if run.learns(done):
                    run.state = learn[number](run.state, settings[number], batch)
            _wait(ahead, batch, runs)
            if runs[0].went_back():  # which are taught alone
                done = runs[0].start
                continue
            if done in reports:
                _report(runs, done, progress)
                if all(run.error for run in runs):
                    break
            if done < lead.total_steps:
                spent += save_due(
                    [run for run in runs if run.learns(done)],
                    checkpoint_seconds,
                    share * (time.perf_counter() - began) - spent,
                )
    met = lead.train.substituted
    broken = None if met is None else set[int]().union(*processes.exchanged({*met}))
    return [run.error or run.finish(len(runs), broken) for run in runs]


def _wait(ahead: deque[jax.Array], batch: step.Batch, runs: list[StudentRun]) -> None:
    """Bounds how far the host runs ahead of the device, so that batches do not pile up in its memory."""
    if not sharding.most_ahead():
        jax.block_until_ready([run.state for run in runs])
        return
    ahead.append(batch.targets)
    if len(ahead) > sharding.most_ahead():
        jax.block_until_ready(ahead.popleft())


def save_due(runs: list[StudentRun], checkpoint_seconds: float, allowed: float) -> float:
    """Saves in process 0 those whose last checkpoint is too long ago, in the seconds allowed; gives seconds."""
    if not processes.first():
        return 0.0
    began = time.perf_counter()
    due = sorted((run for run in runs if began - run.saved >= checkpoint_seconds), key=lambda run: run.saved)
    if allowed < 0 or not due:
        return 0.0
    jax.block_until_ready([run.state for run in due])  # which is no work of a checkpoint
    began = time.perf_counter()
    for run in due:
        if time.perf_counter() - began <= allowed:
            run.save()
    return time.perf_counter() - began


def _report(runs: list[StudentRun], done: int, progress: Progress) -> None:
    working = [run for run in runs if run.learns(done)]
    for run in working:
        run.report()
        if run.error is not None and len(runs) > 1:
            logger.info("%s The other students go on.", run.error)
    losses = [run.rows[-1]["loss"] for run in working if run.error is None]
    if losses:
        progress.report(done, float(np.mean(losses)))
