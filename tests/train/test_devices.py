"""One device or several: a step is the same to rounding, and what grows of it is no more than what rounding grows to.

Eight devices are simulated in a process of its own.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("tiny_models")

SCRIPT = """
import contextlib, json, sys
import jax, jax.numpy as jnp, numpy as np
import tiny
from distill_lib import sharding
from distill_lib.models import mobilenets
from distill_lib.train import setup, step

teacher, student, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
tiny.register()
rows = (mobilenets.Row(3, 16, 16, False, "relu", 1), mobilenets.Row(3, 24, 16, True, "hard_swish", 2))
mobilenets.ROWS["tiny"], mobilenets.WIDTHS["tiny"] = rows, (24, 32)
task = setup.prepare(tiny.recipe(teacher, policy="mix", student=student, epochs=25, warmup_steps=0))


def course(devices, nudge=1.0):
    "The loss of each step, and the state after the first."
    mesh = sharding.data_mesh(devices)
    state = task.initial_state()
    state = state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.float32(nudge), state.params))
    state, settings = sharding.put((state, task.settings), sharding.everywhere(mesh))
    learn, sums, first = step.learn(task.student, task.recipe, mesh=mesh), [0.0], None
    with contextlib.closing(task.batches(0, mesh)) as given:
        for _, batch in zip(range(steps), given):
            assert len(batch.images.addressable_shards) == devices
            state = jax.block_until_ready(learn(state, settings, batch))
            sums.append(float(state.loss_sum))
            first = first or jax.device_get(state)
    return np.diff(sums), first


def apart(values, others):
    "The largest distance of two trees' arrays, each relative to the array's own length."
    pairs = zip(map(np.float64, jax.tree.leaves(values)), map(np.float64, jax.tree.leaves(others)), strict=True)
    return max((float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)) for a, b in pairs), default=0.0)


def joined(tree):
    "All arrays as one: means that are zero but for rounding have no length of their own."
    return [np.concatenate([np.zeros(0), *(leaf.ravel() for leaf in jax.tree.leaves(tree))])]


losses, first = course(1)
courses = {str(devices): course(devices) for devices in (2, 8)}
if steps > 1:
    courses["a rounding"] = course(1, 1 + 2**-23)
print("now", json.dumps({
    name: {
        "first loss": abs(others[0] / losses[0] - 1),
        "parameters": apart(after.params, first.params),
        "statistics": apart(joined(after.statistics), joined(first.statistics)),
        "largest": float(np.abs(others / losses - 1).max()),
    }
    for name, (others, after) in courses.items()
}))
"""


@functools.cache
def compared(teacher: Path, student: str, steps: int) -> dict[str, dict[str, float]]:
    """How far 2 and 8 devices, and over several steps one device with other roundings, are from one, each relative."""
    own = {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=8")}
    own["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", SCRIPT, str(teacher), student, str(steps)]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("now ")[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "steps"), [("bit_r5w8", 100), ("mobilenet_v3_tiny_bn", 1)], ids=["GroupNorm", "BatchNorm"]
)
def test_a_step_is_the_same_on_any_number_of_devices(student: str, steps: int, teacher: Path) -> None:
    """To one part in a million: loss, parameters, and running statistics, which are of the whole batch."""
    distances = compared(teacher, student, steps)
    for devices in ("2", "8"):
        for quantity in ("first loss", "parameters", "statistics"):
            assert distances[devices][quantity] < 1e-6, (devices, quantity)
    assert (distances["2"]["statistics"] > 0) == (student != "bit_r5w8")  # there are some, and rounding is seen


@pytest.mark.slow
def test_devices_grow_apart_as_a_rounding_of_the_first_weights_does(teacher: Path) -> None:
    """Over a hundred steps differences grow on one device too: no number of devices can promise more than that."""
    distances = compared(teacher, "bit_r5w8", 100)
    rounding = distances["a rounding"]["largest"]
    assert rounding > 1e-5
    assert all(distances[devices]["largest"] < 10 * rounding for devices in ("2", "8"))
