"""Training: one loop for one student or a sweep of them, and a record for each at the end.

Deliberately absent: data augmentation outside of `views`, early stopping, weight averaging, and any randomness that is
not a function of (seed, step, position in the batch). So a run that is killed and started again ends with the same bits
on the same machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import records, sharding
from distill_lib.errors import DistillError
from distill_lib.log import logger
from distill_lib.recipes import Recipe
from distill_lib.train import batches, checkpoint, processes, step, student
from distill_lib.train.progress import Progress
from distill_lib.train.setup import prepare
from distill_lib.train.student import Run, StudentRun
from distill_lib.train.task import Task

CHECKPOINT_SHARE = 0.01  # of a run's time that may go into checkpoints


def fit(
    recipe: Recipe,
    workdir: str | os.PathLike[str] | None = None,
    *,
    checkpoint_seconds: float = 60.0,
    loading: str = "auto",
    workers: int | None = None,
    on_bad_image: str = "substitute",
    replay: str | os.PathLike[str] | None = None,
    remat: bool = False,
    resume_changed: bool = False,
) -> Run:
    """Trains a student, or takes up the run where it was killed, or reuses the finished run.

    Args:
        recipe: what to run.
        workdir: the results folder; None finds it (see `records.find_results`).
        checkpoint_seconds: time between two training checkpoints; more where they would take over 1 % of it.
        loading: how images come, as in `setup.prepare`; streamed runs have names of their own.
        workers: threads that decode, where images are decoded on the way.
        on_bad_image: "substitute" or "raise": what is done about broken images that are met on the way.
        replay: folder of soft labels that are replayed, as in `setup.prepare`; such runs have names of their own.
        remat: whether activations are computed again in the backward pass rather than kept, as in `step.learn`.
        resume_changed: whether a run goes on that was begun with other code, versions, devices, settings or data; the
            record then tells which, and at which step.

    Returns:
        The run; its record lies in `workdir/<study>/<run id>/`.

    Raises:
        DistillError: if data, teacher or folder are not usable, the run was begun otherwise, or the student diverges.
            Earlier records stay intact.
    """
    processes.start()
    sharding.use_compilation_cache()
    options: dict[str, Any] = {"loading": loading, "workers": workers, "on_bad_image": on_bad_image}
    task = processes.together(lambda: prepare(recipe, replay=replay, results=workdir, **options))
    directory = folder(task, workdir)
    if (run := processes.from_first(lambda: student.finished(task, directory))) is not None:
        return run
    (trained,) = train(
        [(task, directory)], checkpoint_seconds=checkpoint_seconds, remat=remat, resume_changed=resume_changed
    )
    if isinstance(trained, Run):
        return trained
    raise trained


def folder(task: Task, workdir: str | os.PathLike[str] | None) -> Path:
    """Where the record of a task lies; None finds the results folder."""
    root = Path(workdir) if workdir is not None else records.find_results()
    return root / task.recipe.study / task.run_id


def train(
    tasks: list[tuple[Task, Path]], *, checkpoint_seconds: float, remat: bool = False, resume_changed: bool = False
) -> list[Run | DistillError]:
    """Teaches students together: every batch is made once, and each student learns from it.

    Args:
        tasks: unfinished tasks of one `shared_batches`, each with the folder of its record.
        checkpoint_seconds: as in `fit`; 0 saves after every step, whatever that takes.
        remat: as in `fit`.
        resume_changed: as in `fit`.

    Returns:
        For each task its run, or the error that ended it while the others went on.

    Raises:
        DistillError: if a checkpoint is damaged or was made otherwise, a folder cannot be written, or another process
            trains one of them.
    """
    records.commit()  # of the code that trains: it may be another one by the end
    mesh = sharding.data_mesh()
    with contextlib.ExitStack() as held:
        processes.from_first(lambda: [held.enter_context(checkpoint.alone(directory)) for _, directory in tasks])
        options: dict[str, bool] = {"remat": remat, "resume_changed": resume_changed}
        runs = [student.take_up(task, directory, mesh, **options) for task, directory in tasks]
        return _train(runs, mesh, checkpoint_seconds, remat)


def _train(runs: list[StudentRun], mesh: Mesh, checkpoint_seconds: float, remat: bool) -> list[Run | DistillError]:
    everywhere = sharding.everywhere(mesh)
    lead, start = runs[0].task, min(run.start for run in runs)
    settings = [sharding.put(run.task.settings, everywhere) for run in runs]
    learn = [step.learn(run.task.student, run.task.recipe, remat, mesh) for run in runs]
    count, ahead = lead.recipe.evaluations, deque[jax.Array]()
    reports = {round(lead.total_steps * (number + 1) / count) for number in range(count)}
    label = lead.run_id if len(runs) == 1 else f"{len(runs)} students ({lead.recipe.policy})"
    share, spent = CHECKPOINT_SHARE if checkpoint_seconds else float("inf"), 0.0
    began = time.perf_counter()
    with (
        contextlib.closing(batches.batches(lead, start, mesh)) as given,
        contextlib.closing(Progress(label, lead.total_steps, lead.recipe.batch_size, start)) as progress,
    ):
        for done, batch in zip(range(start + 1, lead.total_steps + 1), given, strict=False):
            for number, run in enumerate(runs):
                if run.learns(done):
                    run.state = learn[number](run.state, settings[number], batch)
            _wait(ahead, batch, runs)
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
    substituted = lead.train.substituted
    bad_images = None if substituted is None else len(set().union(*processes.exchanged({*substituted})))
    return [run.error or run.finish(len(runs), bad_images) for run in runs]


def _wait(ahead: deque[jax.Array], batch: step.Batch, runs: list[StudentRun]) -> None:
    """Bounds how far the host runs ahead of the device, so that batches do not pile up in its memory."""
    if not batches.most_ahead():
        jax.block_until_ready([run.state for run in runs])
        return
    ahead.append(batch.targets)
    if len(ahead) > batches.most_ahead():
        jax.block_until_ready(ahead.popleft())


def save_due(runs: list[StudentRun], checkpoint_seconds: float, allowed: float) -> float:
    """Saves those whose last checkpoint is so long ago, the oldest first; none is begun after the seconds allowed.

    Returns the seconds that it took. Process 0 does so alone, since each has the whole state.
    """
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
