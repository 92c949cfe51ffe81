"""Training checkpoints: the newest state of an unfinished run, so that a killed run goes on as if it never stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps other processes from writing a run, or soft labels, into a folder at the same time; a kill sets it free.

    Does nothing where the system has no such locks.

    Raises:
        DistillError: if another process trains it, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = directory / ".lock"
    busy = DistillError(
        f"{directory} is in use by another process: wait for it, then the same command goes on from what it made."
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115 (it is held until the end)
    except OSError as error:
        raise DistillError(
            f"cannot write {path} ({error.strerror}); make the folder writable or name another."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        except OSError:  # a file system without locks
            pass
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise busy  # whoever had it has finished and taken it away
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def save(directory: Path, step: int, state: Any, facts: dict[str, Any]) -> None:
    """Writes the state of a run and drops the one before; a kill at any moment leaves one of the two whole.

    Args:
        directory: folder of the checkpoints.
        step: steps done.
        state: pytree of arrays.
        facts: JSON-able numbers to keep with it.

    Raises:
        DistillError: if it cannot be written.
    """
    import orbax.checkpoint as ocp

    content = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts))
    try:
        with _manager(directory) as manager:
            manager.save(step, args=content)
    except Exception as error:  # Orbax raises many kinds
        raise DistillError(
            f"cannot write the checkpoint {directory}/{step} ({_reason(error)}); make room there."
        ) from error


def load(directory: Path, like: Any) -> tuple[Any, dict[str, Any]] | None:
    """Reads the newest state.

    Args:
        directory: folder of the checkpoints.
        like: a state of the same structure, shapes and sharding.

    Returns:
        The state and its facts, or None where there is no checkpoint.

    Raises:
        DistillError: if the checkpoint is damaged.
    """
    import jax
    import orbax.checkpoint as ocp

    if not directory.is_dir():
        return None
    with _manager(directory) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        content = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), facts=ocp.args.JsonRestore())
        try:
            restored = manager.restore(step, args=content)
        except Exception as error:  # Orbax raises many kinds for damaged files
            raise DistillError(
                f"checkpoint {directory}/{step} is damaged ({_reason(error)}); delete {directory}."
            ) from error
    return restored["state"], restored["facts"]


def drop(directory: Path) -> None:
    """Deletes the checkpoints of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _manager(directory: Path) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False, create=True)
    return ocp.CheckpointManager(directory.absolute(), options=options)
