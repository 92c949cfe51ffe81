"""A second place for runs, such as a bucket, where the machine that trains may vanish with its disk.

With DISTILL_MIRROR=gs://BUCKET/FOLDER, or any other address that fsspec knows, a run's checkpoint is copied there when
it is written and its files when it has ended; a run that is not in the results folder is fetched from there. Locks are
those of the results folder: of two machines that train the same run at once, the copy is that of the later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError, logger
from distill_lib.train import checkpoint
from distill_lib.weights import write_atomically

ADDRESS = "DISTILL_MIRROR"
FINISHED = ("student.npz", "metrics.csv", "run.json")  # the last says that the others are there


def fetch(directory: Path) -> None:
    """Copies here what the mirror has of a run, if there is a mirror and nothing of the run here."""
    if not os.environ.get(ADDRESS) or any((directory / name).is_file() for name in (FINISHED[-1], *checkpoint.KEPT)):
        return
    try:
        store, place = _of(directory)
        names = {Path(path).name for path in store.find(place)}
        for name in FINISHED if FINISHED[-1] in names else names & {checkpoint.NEWEST}:
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / name, store.cat_file(f"{place}/{name}"))
    except DistillError:
        raise
    except Exception as error:  # each kind of store has its own
        raise DistillError(f"{_problem('read', error)}; mend that, or unset {ADDRESS}.") from error


def push(directory: Path, *, ended: bool) -> None:
    """Copies a run's files to the mirror, if there is one; a failure is told, and the run goes on."""
    if not os.environ.get(ADDRESS):
        return
    try:
        store, place = _of(directory)
        store.makedirs(place, exist_ok=True)
        for name in FINISHED if ended else (checkpoint.NEWEST,):
            store.pipe_file(f"{place}/{name}", (directory / name).read_bytes())
        if ended and store.exists(saved := f"{place}/{checkpoint.NEWEST}"):
            store.rm_file(saved)
    except Exception as error:
        logger.warning("%s: %s is here alone.", _problem("written", error), directory)


def _of(directory: Path) -> tuple[Any, str]:
    """The file system of the mirror, and where in it a run lies."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise DistillError(f"{ADDRESS} needs fsspec: pip install 'distill_lib[mirror]'.") from error
    store, root = fsspec.core.url_to_fs(os.environ[ADDRESS])
    return store, f"{root}/{directory.parent.name}/{directory.name}"


def _problem(done: str, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"{os.environ[ADDRESS]} cannot be {done} ({reason})"
