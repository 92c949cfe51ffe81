"""Training checkpoints: the newest states of an unfinished run, so that a killed run goes on as if it never stopped.

A checkpoint is an .npz, with a CRC-32 of it at its end: the leaves of the state in order, and facts in JSON.
"""

import contextlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_lib import weights
from distill_lib.errors import DistillError, logger

KEPT = NEWEST, BEFORE, DAMAGED = ("checkpoint.npz", "checkpoint_before.npz", "checkpoint_damaged.npz")
LOCK = ".lock"
CHECKSUM = 4  # bytes


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps other processes, where the system has locks, from writing into a folder; DistillError if it is in use."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = directory / LOCK
    busy = DistillError(
        f"{directory} is in use by another process: wait for it, then the same command goes on from what it made."
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise DistillError(
            f"cannot write {path} ({error.strerror}); make room, make the folder writable or name another."
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


def save(directory: Path, state: Any, facts: dict[str, Any]) -> None:
    """Writes a state (a tree of arrays) and JSON-able facts; a kill at any moment leaves it or the one before whole."""
    leaves = {str(number): np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
    content = io.BytesIO()
    np.savez(content, facts=np.array(json.dumps(facts)), **leaves)  # type: ignore[arg-type]
    content.write(zlib.crc32(content.getbuffer()).to_bytes(CHECKSUM))
    weights.write_atomically(directory / NEWEST, content.getbuffer(), keep=directory / BEFORE)


def load(directory: Path) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Reads leaves (for `restored`) and facts of the newest whole state; None where there is none at all.

    A damaged one is told, and set aside where there is one before it, else a DistillError; leftovers are removed.
    """
    for leftover in weights.unfinished(directory):
        leftover.unlink(missing_ok=True)
    if (directory / "checkpoint").is_dir():
        raise DistillError(f"{directory}/checkpoint is of an earlier version: finish that run with it, or delete this.")
    paths = [path for path in (directory / NEWEST, directory / BEFORE) if path.is_file()]
    for path in paths:
        try:
            content = path.read_bytes()
            if zlib.crc32(memoryview(content)[:-CHECKSUM]) != int.from_bytes(content[-CHECKSUM:]):
                raise ValueError("its checksum is another")
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                leaves = [file[str(number)] for number in range(len(file.files) - 1)]
                return leaves, json.loads(str(file["facts"]))
        except Exception as error:  # NumPy and zipfile raise many kinds for what they do not understand
            problem = f"{path} is damaged ({(str(error) or type(error).__name__).splitlines()[0]})"
            if path == paths[-1]:
                raise DistillError(f"{problem}, and there is none before it; delete it.") from error
            logger.warning("%s: the run goes on from the checkpoint before it.", problem)
            os.replace(path, directory / DAMAGED)
    return None


def restored(leaves: list[np.ndarray], like: Any) -> Any:
    """The state of such leaves, in the form of another; raises DistillError where they do not fit."""
    forms, tree = jax.tree.flatten(like)
    if [(leaf.shape, leaf.itemsize) for leaf in leaves] != [(leaf.shape, leaf.dtype.itemsize) for leaf in forms]:
        raise DistillError("the checkpoint does not fit what this version of the code trains; delete it.")
    typed = [leaf.view(form.dtype) for leaf, form in zip(leaves, forms, strict=True)]  # bfloat16 is read as bytes
    return jax.tree.unflatten(tree, typed)


def tidy(directory: Path, unfinished: Iterable[Path] = ()) -> None:
    """Removes what a finished run needs no more, and what kills left unfinished, unless others may be writing it."""
    for leftover in (*(directory / name for name in (*KEPT, LOCK, "recipe.json")), *unfinished):
        with contextlib.suppress(OSError):  # of a folder that may only be read
            leftover.unlink(missing_ok=True)
