"""Many notebook runs on many workers: Dask hands them out, one at a time to each worker and so to each accelerator.

A run is one papermill execution in a process of its own, with its own executed notebook and its own log. The run of a
worker that is lost is given to another one, where it goes on from its checkpoint: all workers share the results folder
and the working folder. What could share a teacher's pass is one run: a list for a parameter that is a list.
"""

import ctypes
import functools
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_lib import records
from distill_lib.errors import DistillError, logger
from distill_lib.experiments import notebooks

LOST = 3  # workers that may be lost with the same run before it counts as the cause
IN_USE = "is in use by another process"  # what `checkpoint.alone` says, also for the second in which a lost run ends
PATIENCE = 60  # seconds for which that is waited for
_ALONE = threading.Lock()  # of this process, however many threads a worker has


@dataclass(frozen=True, kw_only=True)
class Job:
    """One execution of a notebook: the words that `distill` is given, and where its output goes."""

    name: str
    words: tuple[str, ...]
    log: Path
    folder: Path
    results: Path


def jobs(notebook: str, parameters: Mapping[str, Any], log: str | None = None) -> list[Job]:
    """The executions of a notebook, as of `notebooks.find`, for all combinations of values by name; or DistillError.

    A list for a parameter that is none is one value after the other, as a list of lists for one that is a list. `log`
    is that of `distill run`.
    """
    path, results = notebooks.find(notebook).absolute(), records.find_results().absolute()
    axes: dict[str, list[Any]] = {}
    known, planned = notebooks.parameters_of(path), list[Job]()
    notebooks.refuse(parameters, known)
    for name, value in parameters.items():
        varied = isinstance(value, list) and (not known[name] or any(isinstance(each, list) for each in value))
        axes[name] = value if varied else [value]
    for number, values in enumerate(itertools.product(*axes.values())):
        given = dict(zip(axes, values, strict=True))
        varied_values = "_".join(f"{name}-{value}" for name, value in given.items() if len(axes[name]) > 1)
        name = re.sub(r"[^\w.+-]+", "_", f"{number:03d}_{varied_values}")[:120].rstrip("_")
        output = results / "notebooks" / path.stem / f"{name}.ipynb"
        words = ["run", str(path), "--output", str(output)]
        words += [word for name, value in given.items() for word in ("-p", name, str(value))]
        words += ["--log", log] if log else []
        log_file = output.with_suffix(".log")
        planned.append(Job(name=name, words=tuple(words), log=log_file, folder=Path.cwd(), results=results))
    if not planned:
        raise DistillError("there is nothing to run: name at least one value of each parameter.")
    return planned


def sweep(planned: list[Job], scheduler: str = "local", workers: int | None = None) -> str:
    """Has Dask's workers execute `jobs`, and returns a line for each: how it ended, and its log.

    The scheduler is "tcp://HOST:PORT", or "local" for so many workers on this machine (None: one for each GPU, or one).
    What is finished is reused. DistillError, with that table, if a run failed, and where Dask is not to be had.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise DistillError("sweeps over workers need Dask: pip install 'distill_lib[sweep]'.") from error
    ended: dict[str, str] = {}
    try:
        with _client(distributed, scheduler, workers) as client:
            futures = {
                client.submit(execute, job, scheduler == "local", key=f"{job.name}-{time.time()}", pure=False): job
                for job in planned
            }
            _collect(distributed, futures, ended)
    finally:
        table = "\n".join(f"{ended.get(job.name, 'not finished'):<14} {job.name}  {job.log}" for job in planned)
        if len(ended) < len(planned):  # an interrupt, or the scheduler is gone
            logger.info("%s", table)
    if problems := [text for text in ended.values() if text != "done"]:
        failed = f"{len(problems)} of {len(planned)} runs failed"
        raise DistillError(f"{failed}; the same command tries them again.\n{table}")
    return table


def _client(distributed: Any, scheduler: str, workers: int | None) -> Any:
    import dask

    dask.config.set({"distributed.scheduler.allowed-failures": LOST})
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost one is told in a line
    if scheduler != "local":
        try:
            return distributed.Client(scheduler, timeout=30)
        except (OSError, ValueError) as error:
            start = "start one with `dask scheduler`."
            raise DistillError(f"no Dask scheduler at {scheduler} ({error}): {start}") from error
    count = workers or len(list(Path("/dev").glob("nvidia[0-9]*"))) or 1
    return distributed.Client(n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None)


def _collect(distributed: Any, futures: dict[Any, Job], ended: dict[str, str]) -> None:
    began = time.perf_counter()
    for future in distributed.as_completed(futures):
        if future.status not in ("finished", "error"):
            raise DistillError("the Dask scheduler is gone: start it again, then the same command goes on.")
        error = future.exception()
        ended[futures[future].name] = "done" if error is None else " ".join(str(error).split())
        left = (time.perf_counter() - began) / len(ended) * (len(futures) - len(ended))
        failed = sum(text != "done" for text in ended.values())
        logger.info("%d of %d runs ended, %d failed, %.0f s left", len(ended), len(futures), failed, left)


def execute(job: Job, local: bool = False) -> None:
    """Executes one run in a worker, one of those numbered `local` with its own GPU; a log's last line is the error."""
    variables = {"DISTILL_RESULTS": str(job.results)}
    if local and "CUDA_VISIBLE_DEVICES" not in os.environ:
        from distributed import get_worker

        variables["CUDA_VISIBLE_DEVICES"] = str(get_worker().name)
    command: dict[str, Any] = {"args": [sys.executable, "-m", "distill_lib", *job.words], "cwd": job.folder}
    command |= {"env": os.environ | variables, "stderr": subprocess.STDOUT}
    if sys.platform == "linux":  # the run of a lost worker is not to go on beside its successor
        command["preexec_fn"] = functools.partial(ctypes.CDLL(None).prctl, 1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    last_try = time.monotonic() + PATIENCE
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with _ALONE:
        while True:
            with job.log.open("ab") as log:
                code = subprocess.run(stdout=log, **command).returncode
            if code == 0:
                return
            lines = job.log.read_text(errors="replace").splitlines() or [f"exit code {code}"]
            if IN_USE not in lines[-1] or time.monotonic() > last_try:
                raise DistillError(lines[-1].removeprefix("error: "))
            time.sleep(1)
