"""Several processes that train as one, each with its own devices: they are started, and agree with each other.

Under Slurm, Open MPI and on TPU pods JAX finds the others by itself. Anywhere else three variables name them:
JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0). All run the same
command. Process 0 alone reads and writes the results folder, so only data and teachers have to be there for all.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_lib import records
from distill_lib.errors import DistillError
from distill_lib.log import logger

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables of those that start processes, which hold how many there are."""
HOSTS = "TPU_WORKER_HOSTNAMES"  # of a TPU pod slice, separated by commas

Value = TypeVar("Value")


def start() -> None:
    """Joins the other processes, if there are any; to be called before JAX computes anything.

    Raises:
        DistillError: if the variables make no sense, JAX has computed before, or the others cannot be reached.
    """
    named = _named()
    if jax.distributed.is_initialized() or (named is None and not _several()):
        return
    try:
        jax.distributed.initialize(**(named or {}))
    except ValueError as error:
        if named is None and importlib.util.find_spec("libtpu"):  # which is installed, but there is no TPU
            return
        raise DistillError(f"processes cannot be joined ({error}): set {', '.join(VARIABLES)}.") from error
    except RuntimeError as error:
        raise DistillError(
            f"processes cannot be joined ({str(error).splitlines()[0]}): start all of them with the same command, and "
            "train before anything else is computed."
        ) from error
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise DistillError("each process has to have as many devices as every other: start one for each host or GPU.")
    if not first():
        logger.setLevel(logging.WARNING)


def _named() -> dict[str, Any] | None:
    """What the three variables say; None where none is set."""
    values = [os.environ.get(name) for name in VARIABLES]
    if values[1:] == [None, None]:
        return None
    try:
        address, count, number = str(values[0] or ""), int(values[1] or ""), int(values[2] or "")
    except ValueError:
        address, count, number = "", 0, 0
    if ":" not in address or not 0 <= number < count:
        raise DistillError(
            f"{', '.join(f'{name} is {value}' for name, value in zip(VARIABLES, values, strict=True))}: set all three, "
            "to HOST:PORT of process 0, how many processes there are, and the number of this one, from 0."
        )
    return {"coordinator_address": address, "num_processes": count, "process_id": number}


def _several() -> bool:
    """Whether whoever started this process may have started more, so that JAX has to look for them."""
    counts = [os.environ.get(name, "1") for name in COUNTS]
    on_tpu = importlib.util.find_spec("libtpu") is not None and "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    return any(count not in ("", "1") for count in counts) or "," in os.environ.get(HOSTS, "") or on_tpu


def first() -> bool:
    """Whether this is process 0, which alone writes."""
    return jax.process_index() == 0


def from_first(compute: Callable[[], Value]) -> Value:
    """What a function gives in process 0 alone, for all processes; a DistillError there is raised in all."""
    if jax.process_count() == 1:
        return compute()
    content = b""
    if first():
        try:
            content = pickle.dumps((compute(), None))
        except DistillError as error:
            content = pickle.dumps((None, error))
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content.ljust(size), np.uint8)
    value, problem = pickle.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
    if problem is not None:
        raise problem
    return value


def together(compute: Callable[[], Value]) -> Value:
    """What a function gives here; a DistillError in any process is raised in all, so that none waits for ever."""
    value, problem = None, None
    try:
        value = compute()
    except DistillError as error:
        problem = error
    if problems := [each for each in exchanged(problem) if each is not None]:
        raise problem or problems[0]
    return value  # type: ignore[return-value]


def exchanged(value: Value) -> list[Value]:
    """The values that all processes give, in their order."""
    if jax.process_count() == 1:
        return [value]
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    parts = multihost_utils.process_allgather(np.pad(content, (0, sizes.max() - len(content))))
    return [pickle.loads(part[:size].tobytes()) for part, size in zip(parts, sizes, strict=True)]


def same(facts: dict[str, Any]) -> dict[str, Any]:
    """JSON-able facts of a run, if they are the same in all processes; DistillError naming a difference elsewhere."""
    everybody = exchanged(facts)
    for number, others in enumerate(everybody):
        if changed := records.differences(everybody[0], others):
            raise DistillError(f"process {number} is not like process 0: {records.in_words(changed)}; make them equal.")
    return facts
