"""The devices of a run along one axis, "data": batches are split over it, and all else lies on every device."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCHES_AHEAD = 2  # that may wait for students; each holds its images on the device
KEPT = {-1: -1, -2: 256 * 2**20, -4: 0}  # M_TRIM_THRESHOLD (never), M_TOP_PAD and M_MMAP_MAX (nothing) of malloc.h


def keep_freed_memory() -> None:
    """Lets glibc, where it is, keep large buffers for the next step, unless MALLOC_* or GLIBC_TUNABLES are set."""
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in KEPT.items():
            mallopt(option, value)


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, unless JAX was told where: a second run starts at once."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "distill_lib" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def data_mesh(count: int | None = None) -> Mesh:
    """The first `count` devices, or all, along one axis "data"; those of a process stand side by side."""
    if jax.process_count() > 1:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    return jax.make_mesh((count or jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def most_ahead() -> int:
    """How many batches the host may be ahead: none of several CPU devices, which would wait for each other for ever."""
    return 0 if jax.default_backend() == "cpu" and jax.device_count() > 1 else BATCHES_AHEAD


def split(mesh: Mesh) -> NamedSharding:
    """How a batch lies on a mesh: each device has its share of the images."""
    return NamedSharding(mesh, PartitionSpec("data"))


def everywhere(mesh: Mesh) -> NamedSharding:
    """How variables lie on a mesh: whole on each device."""
    return NamedSharding(mesh, PartitionSpec())


def put(arrays: Any, sharding: NamedSharding) -> Any:
    """Lays out a tree of arrays that every process has whole; those that lie so already are not sent again."""
    if jax.process_count() == 1:
        return jax.device_put(arrays, sharding)

    def place(array: Any) -> jax.Array:
        if getattr(array, "sharding", None) == sharding:
            return array
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, arrays)


def fetch(arrays: Any) -> Any:
    """A tree of arrays as NumPy's, whole in every process."""
    return jax.device_get(arrays) if jax.process_count() == 1 else multihost_utils.process_allgather(arrays, tiled=True)


def own_rows(size: int) -> slice:
    """Those of a batch, or a part, of so many examples that lie on the devices of this process."""
    share = size // jax.process_count()
    return slice(share * jax.process_index(), share * (jax.process_index() + 1))


def in_any(flags: np.ndarray) -> np.ndarray:
    """Which flags (n,) are set in any process."""
    return flags if jax.process_count() == 1 else multihost_utils.process_allgather(flags).any(axis=0)


def on_all_devices(variables: Any) -> Any:
    """A tree of arrays, whole on each device; those that are there already are not sent again."""
    return put(variables, everywhere(data_mesh()))


def in_parts(examples: Any, size: int) -> Iterator[Any]:
    """Hands out a tree of NumPy arrays (n, ...) in parts of `part_size`, each on the devices as `filled` has it."""
    count = len(jax.tree.leaves(examples)[0])
    size = part_size(size, count)
    for start in range(0, count, size):
        yield filled(jax.tree.map(lambda array: array[start : start + size], examples), size)  # noqa: B023


def part_size(size: int, count: int) -> int:
    """How many of `count` examples a part has: as asked, or all if there are fewer, so that all devices share it."""
    devices = jax.device_count()
    return -(-min(size, count) // devices) * devices


def filled(examples: Any, size: int) -> Any:
    """Splits a tree of NumPy arrays (n, ...) over all devices; ones fill it up to a size that `part_size` gives."""

    def fill(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array, np.ones((size - len(array), *array.shape[1:]), array.dtype)])

    return put(jax.tree.map(fill, examples), split(data_mesh()))
