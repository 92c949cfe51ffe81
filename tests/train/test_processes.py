"""Several processes train as one: they end with what one process with their devices ends with, kills or not."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from distill_lib import records, train
from distill_lib.errors import DistillError
from distill_lib.train import processes, record_soft_labels

pytestmark = pytest.mark.usefixtures("tiny_models", "programs_of_children")

SCRIPT = """
import functools, json, sys
import jax
import tiny
from distill_lib import train
from distill_lib.errors import DistillError
from distill_lib.train import checkpoint, record_soft_labels

teacher, results, settings, options = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
tiny.register()
# a process that lost another ends after this silence, and not after JAX's hundred seconds
jax.distributed.initialize = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=8)
save = checkpoint.save


def announced(folder, state, facts):
    save(folder, state, facts)
    print(f"now saved {jax.tree.leaves(state)[0]}", flush=True)


checkpoint.save = announced
recipe = tiny.recipe(teacher, **settings)
try:
    if folder := options.pop("store", None):
        record_soft_labels.store(recipe, folder, 10)
    else:
        run = train.fit(recipe, results, checkpoint_seconds=0, **options)
        print("now", json.dumps({"result": run.record["result"], "resumed": run.record["resumed"]}), flush=True)
except DistillError as error:
    print("error:", error, flush=True)
"""
SHORT = {"policy": "mix", "epochs": 3}  # 12 steps


def start(count: int, teacher: Path, results: Path, settings: dict, **options: object) -> list[subprocess.Popen]:
    """Starts as many processes with one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(count),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=1"),
    }
    command = [sys.executable, "-c", SCRIPT, str(teacher), str(results), json.dumps(settings), json.dumps(options)]
    started = []
    for number in range(count):
        environment = os.environ | own | {"JAX_PROCESS_ID": str(number)}
        with (results / f"errors_{number}.txt").open("w") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        started.append(process)
    return started


def ended(started: list[subprocess.Popen], results: Path) -> list[dict]:
    """What all processes print of their run at the end, which each reaches."""
    printed = [process.communicate(timeout=600)[0] for process in started]
    errors = [(results / f"errors_{number}.txt").read_text()[-3000:] for number in range(len(started))]
    assert [process.returncode for process in started] == [0] * len(started), errors
    return [json.loads(text.split("now ")[-1]) for text in printed]


def the_record(results: Path) -> Path:
    """The folder of the only record."""
    (path,) = results.glob("*/*/run.json")
    return path.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loading", "settings"),
    [
        ("device", {"on_divergence": "rewind"}),
        ("stream", {"policy": "fix/cc", "optimizer": "shampoo", "learning_rate": 1e-3}),
    ],
    ids=["in memory, ready to go back", "streamed, a fixed teacher and Shampoo"],
)
def test_two_processes_of_which_one_is_killed_end_with_the_bits_of_one_process(
    loading: str, settings: dict, teacher: Path, tmp_path: Path
) -> None:
    """The sum of two devices' gradients has one order only, so two processes give the bits of one with two devices.

    After the second is killed the first one ends too, instead of waiting; started again, both go on where they were.
    """
    apart, alone = tmp_path / "apart", tmp_path / "alone"
    apart.mkdir()
    settings = SHORT | settings
    unbroken = train.fit(tiny.recipe(teacher, **settings), alone, loading=loading)
    one, other = start(2, teacher, apart, settings, loading=loading)
    assert one.stdout is not None and other.stdout is not None
    for line in one.stdout:
        if line == "now saved 5\n":
            break
    other.kill()
    one.communicate(timeout=300)
    assert one.wait() != 0 and not list(apart.glob("*/*/run.json"))
    other.communicate()
    runs = ended(start(2, teacher, apart, settings, loading=loading), apart)
    assert runs[0] == runs[1] == {"result": unbroken.record["result"], "resumed": 1}
    folder = the_record(apart)
    assert {path.name for path in folder.iterdir()} == {"run.json", "metrics.csv", "student.npz"}
    for name in ("metrics.csv", "student.npz"):
        assert (folder / name).read_bytes() == (unbroken.directory / name).read_bytes()
    record = records.load(folder)
    assert record is not None and (record["process_count"], record["device_count"]) == (2, 2)


@pytest.mark.slow
def test_four_processes_make_the_step_of_one_to_rounding(teacher: Path, tmp_path: Path) -> None:
    """Of four summands the order is free: one step agrees to the rounding of float32."""
    settings = SHORT | {"epochs": 0.25, "evaluations": 1, "warmup_steps": 0}
    results = tmp_path / "apart"
    results.mkdir()
    runs = ended(start(4, teacher, results, settings, loading="stream"), results)
    alone = train.fit(tiny.recipe(teacher, **settings), tmp_path, loading="stream")
    assert alone.record["steps"] == 1 and all(run == runs[0] for run in runs)
    assert runs[0]["result"]["train_loss"] == pytest.approx(alone.record["result"]["train_loss"], rel=1e-6)


@pytest.mark.slow
def test_two_processes_store_the_soft_labels_of_one(teacher: Path, tmp_path: Path) -> None:
    """Process 0 writes what both of them asked the teacher; the shards are those of one process."""
    apart, alone = tmp_path / "apart", tmp_path / "alone"
    for process in start(2, teacher, tmp_path, SHORT, store=str(apart)):
        process.communicate(timeout=300)
        assert process.returncode == 0
    record_soft_labels.store(tiny.recipe(teacher, **SHORT), alone, 10)
    assert [path.name for path in sorted(apart.iterdir())] == [path.name for path in sorted(alone.iterdir())]
    for path in apart.iterdir():
        assert path.read_bytes() == (alone / path.name).read_bytes()


@pytest.mark.slow
def test_what_stops_one_process_is_told_by_all(teacher: Path, tmp_path: Path) -> None:
    """A batch that the devices cannot share, and a run that only process 0 sees to be another's, end all in a line."""
    settings = SHORT | {"batch_size": 15}
    printed = [process.communicate(timeout=300)[0] for process in start(2, teacher, tmp_path, settings)]
    assert [text.splitlines()[-1] for text in printed] == [
        "error: batch_size 15 cannot be shared by 2 devices; choose a multiple."
    ] * 2


@pytest.mark.parametrize(
    "values",
    [(None, "2", "0"), ("host", "2", "0"), ("host:1", "2", None), ("host:1", "2", "2"), ("host:1", "two", "0")],
)
def test_variables_that_make_no_sense_are_told(values: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them, a number that is none, a process beyond the last: one line with all three."""
    for name, value in zip(processes.VARIABLES, values, strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(DistillError, match="JAX_COORDINATOR_ADDRESS is .*: set all three"):
        processes.start()


def test_a_process_that_has_computed_alone_cannot_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX joins others before it computes anything, and says so otherwise."""
    jax.devices()
    for name, value in zip(processes.VARIABLES, ("localhost:1", "2", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(DistillError, match=r"processes cannot be joined .* before anything else is computed"):
        processes.start()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
    ],
    ids=["no variables", "one task", "a batch script without srun", "one TPU host"],
)
def test_a_process_alone_joins_nobody(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine, and as the only task of a Slurm job, nothing is started."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.start()
    assert not jax.distributed.is_initialized()


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"TPU_WORKER_HOSTNAMES": "one,other"},
    ],
    ids=["Slurm", "Open MPI", "TPU"],
)
def test_jax_looks_for_the_others_where_several_were_started(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the three variables JAX itself finds address, count and number, so none of them is given to it."""
    given: list[dict] = []
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: given.append(arguments))
    processes.start()
    assert given == [{}]


def test_a_process_with_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides a run's result has to be the same in all processes; the first difference is told."""
    facts = [{"code": "a", "data": "1"}, {"code": "b", "data": "1"}]
    monkeypatch.setattr(processes, "exchanged", lambda _: facts)
    with pytest.raises(DistillError, match=re.escape("process 1 is not like process 0: code was 'a' and is 'b'")):
        processes.same(facts[0])


def test_arrays_of_one_process_come_back_as_they_were() -> None:
    """Alone, nothing is exchanged and an error is raised as it is."""
    assert processes.exchanged({3}) == [{3}] and processes.from_first(lambda: np.pi) == np.pi
    with pytest.raises(DistillError, match="mend it"):
        processes.together(lambda: (_ for _ in ()).throw(DistillError("mend it")))
