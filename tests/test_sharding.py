"""Batches are split over all devices, whatever their number of examples; freed memory is kept for the next step."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from distill_lib import datasets, models, sharding
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline.splits import InMemory

_MAPPED = """
import ctypes, sys
import distill_lib.train.step
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = type("Info", (ctypes.Structure,), {"_fields_": [(str(i), ctypes.c_size_t) for i in range(10)]})
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
before = getattr(libc.mallinfo2(), "3")
assert libc.malloc(48 << 20)
print(getattr(libc.mallinfo2(), "3") - before)
"""

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc alone has these settings"
)


@pytest.mark.parametrize(("count", "size"), [(7, 4), (7, 100), (1, 4), (6, 3), (8, 4)])
def test_parts_are_all_examples_in_order_and_each_device_has_its_share(count: int, size: int) -> None:
    """All parts have one size, which the devices divide; None stands where a tree has none."""
    examples = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    parts = list(sharding.in_parts((examples, None), size))
    np.testing.assert_array_equal(np.concatenate([np.asarray(part) for part, _ in parts])[:count], examples)
    for part, nothing in parts:
        assert nothing is None and part.shape == parts[0][0].shape
        shares = {shard.device: len(shard.data) for shard in part.addressable_shards}
        assert shares == dict.fromkeys(jax.devices(), len(part) / jax.device_count())


@pytest.mark.slow
def test_evaluation_is_shared_among_the_devices_and_says_the_same() -> None:
    """No device computes another's images: the answers are those of one device, each for its own share."""
    model = models.create("bit_r11w8", 3)
    variables = models.init(model, jax.random.key(0), (8, 8, 1))
    variables["params"]["head"]["kernel"] = jax.random.normal(jax.random.key(1), (128, 3))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    alone = jax.jit(lambda variables, images: models.logits(model, variables, images / 127.5 - 1))
    eval_set = EvalSet(InMemory(lambda: datasets.Arrays(images, np.zeros(5, int))))
    said = eval_set.logits(model, variables, 8)
    np.testing.assert_allclose(said, alone(jax.device_put(variables, jax.devices()[0]), images), atol=1e-4)


@glibc
@pytest.mark.parametrize(("own", "mapped"), [({}, 0), ({"MALLOC_PERTURB_": "0"}, 1)])
def test_a_process_that_trains_maps_no_large_buffers(own: dict[str, str], mapped: int) -> None:
    """What a mapping frees goes back to the kernel; a user's own settings stay as they are."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", _MAPPED], env=usual | own, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{mapped}\n", done.stderr
