"""Several processes that train as one, each with its own devices: they are started, and agree with each other.

JAX finds the others under Slurm, Open MPI and on TPU pods. Anywhere else JAX_COORDINATOR_ADDRESS (HOST:PORT of process
0), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0) name them. All run the same command; process 0 alone reads and writes
the results folder.
"""

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
from distill_lib.errors import DistillError, logger

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
HOSTS = "TPU_WORKER_HOSTNAMES"  # of a TPU pod slice, separated by commas

Value = TypeVar("Value")


def start() -> None:
    """Joins the other processes, if there are any, before JAX computes anything; DistillError if they cannot be."""
    named, by_slurm = _named(), "SLURM_STEP_NODELIST" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"
    several = by_slurm or os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1" or "," in os.environ.get(HOSTS, "")
    may_be_tpu = importlib.util.find_spec("libtpu") is not None and "tpu" in os.environ.get("JAX_PLATFORMS", "tpu")
    if jax.distributed.is_initialized() or not (named or several or may_be_tpu):  # of a TPU no variable tells
        return
    try:
        jax.distributed.initialize(**(named or {}))
    except (ValueError, RuntimeError) as error:
        if named or several:  # else it is a TPU's only machine, or there is no TPU
            raise DistillError(
                f"processes cannot be joined ({str(error).splitlines()[0]}): start all of them with the same command, "
                f"before anything else is computed, and set {', '.join(VARIABLES)} where JAX does not find them."
            ) from error
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise DistillError("each process has to have as many devices as every other: start one for each host or GPU.")
    if not first():
        logger.setLevel(logging.WARNING)


def _named() -> dict[str, Any] | None:
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


def first() -> bool:
    """Whether this is process 0, which alone writes."""
    return jax.process_index() == 0


def from_first(compute: Callable[[], Value]) -> Value:
    """What a function gives in process 0 alone, for all processes; a DistillError there is raised in all."""
    if jax.process_count() == 1:
        return compute()
    content = pickle.dumps(_outcome(compute)) if first() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content.ljust(size), np.uint8)
    value, problem = pickle.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
    if problem is not None:
        raise problem
    return value


def together(compute: Callable[[], Value]) -> Value:
    """What a function gives here; a DistillError in any process is raised in all, so that none waits for ever."""
    value, problem = _outcome(compute)
    if problems := [each for each in exchanged(problem) if each is not None]:
        raise problem or problems[0]
    return value  # type: ignore[return-value]


def _outcome(compute: Callable[[], Value]) -> tuple[Value | None, DistillError | None]:
    try:
        return compute(), None
    except DistillError as error:
        return None, error


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
