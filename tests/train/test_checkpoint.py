"""A run that is killed at any moment and started again ends with the bits of one that was never killed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from distill_lib import train
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.train import Run, checkpoint

pytestmark = pytest.mark.usefixtures("tiny_models")

SCRIPT = """
import sys
import tiny
from distill_lib import records, train
from distill_lib.train import checkpoint

teacher, results, moment = sys.argv[1:]
tiny.register()


def announce(function, name):
    def announced(*arguments):
        print(f"now {name(*arguments)}", flush=True)
        if f"wait at {name(*arguments)}" == moment:
            sys.stdin.read()  # until the kill
        return function(*arguments)
    return announced


checkpoint.save = announce(checkpoint.save, lambda folder, step, *_: f"saving {step}")
records.write = announce(records.write, lambda *_: "finishing")
train.fit(tiny.recipe(teacher, policy="mix", epochs=3), results, checkpoint_seconds=0)
print("now finished", flush=True)
"""


def start(teacher: Path, results: Path, moment: str = "") -> subprocess.Popen:
    """Starts the run in a process of its own."""
    own = {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_COMPILATION_CACHE_DIR": str(results / "programs")}
    environment = os.environ | own  # a kill can leave a program half written, which no other test may read
    command = [sys.executable, "-c", SCRIPT, str(teacher), str(results), moment]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def kill_at(teacher: Path, results: Path, line: str, *, wait: bool) -> list[str]:
    """Starts the run, kills it with SIGKILL at that line of its output, and returns what it had printed.

    Args:
        teacher: checkpoint.
        results: folder.
        line: what the process prints at the moment of the kill.
        wait: whether the process stops there until it is killed; else it goes on, and dies a moment later.
    """
    moment = line.replace("now", "wait at", 1) if wait else ""
    with start(teacher, results, moment) as process:
        assert process.stdout is not None and process.stderr is not None
        printed = []
        for text in process.stdout:
            printed.append(text.strip())
            if text.strip() == line:
                process.kill()
                break
        else:
            pytest.fail(f"never printed {line!r}: {printed} {process.stderr.read()[-2000:]}")
    assert process.returncode == -9
    return printed


@pytest.fixture(scope="module")
def unbroken(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run without a kill and without training checkpoints: 12 steps of function matching, 4 reports."""
    return train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path_factory.mktemp("unbroken"))


def assert_same(directory: Path, unbroken: Run) -> dict:
    """Bit-identical parameters, metrics and results; returns the record."""
    for name in ("student.npz", "metrics.csv"):
        assert (directory / name).read_bytes() == (unbroken.directory / name).read_bytes(), name
    record = json.loads((directory / "run.json").read_text())
    assert record["result"] == unbroken.record["result"]
    assert sorted(os.listdir(directory)) == ["metrics.csv", "run.json", "student.npz"]
    return record


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_bits(teacher: Path, unbroken: Run, tmp_path: Path) -> None:
    """SIGKILL before the first checkpoint, while one is written, between two, and before the record is written."""
    directory = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    printed = kill_at(teacher, tmp_path, "now saving 1", wait=True)
    assert not any("resumed" in line for line in printed)
    assert not (directory / "checkpoint").exists() and not (directory / "run.json").exists()

    printed = kill_at(teacher, tmp_path, "now saving 4", wait=False)  # dies somewhere in or after the write
    assert not any("resumed" in line for line in printed)

    printed = kill_at(teacher, tmp_path, "now saving 8", wait=True)
    assert any(f"resumed at step {step} of 12" in line for line in printed for step in (3, 4, 5))
    assert not (directory / "run.json").exists()

    printed = kill_at(teacher, tmp_path, "now finishing", wait=True)
    assert any("resumed at step 7 of 12" in line for line in printed)
    assert not (directory / "run.json").exists()

    again = train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path, checkpoint_seconds=0)
    assert not again.reused
    record = assert_same(directory, unbroken)
    assert record["resumed"] == 3
    assert not (directory / "checkpoint").exists()


@pytest.mark.slow
def test_checkpoints_change_nothing(teacher: Path, unbroken: Run, tmp_path: Path) -> None:
    """Saving after every step, without any kill, gives the same files as never saving; debris of a kill is swept up."""
    directory = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    directory.mkdir(parents=True)
    (directory / ".metrics.csv.123.tmp").write_text("half-writ")
    run = train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path, checkpoint_seconds=0)
    assert assert_same(run.directory, unbroken)["resumed"] == 0


def make_state(seed: int) -> dict:
    """A state with the kinds of arrays that training has, sharing two devices."""
    numbers = np.random.default_rng(seed)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = {
        "step": np.int32(seed),
        "params": {"head": {"kernel": numbers.normal(size=(4, 3)).astype(np.float32)}},
        "moment": numbers.normal(size=(4, 3)).astype(jnp.bfloat16),
        "loss_sum": np.float32(1 / 3),
    }
    return jax.device_put(state, everywhere)


def assert_equal_states(ours: dict, theirs: dict) -> None:
    """Equal dtypes, bits and sharding."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype and one.sharding == other.sharding
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Every bit, bfloat16 and sharding included, and the facts beside it; only the newest state is kept."""
    folder = tmp_path / "checkpoint"
    for done in (3, 7):
        checkpoint.save(folder, done, make_state(done), {"seconds": done / 3, "resumed": 1})
    found = checkpoint.load(folder, make_state(0))
    assert found is not None
    assert_equal_states(found[0], make_state(7))
    assert found[1] == {"seconds": 7 / 3, "resumed": 1}
    assert [entry for entry in os.listdir(folder) if entry.isdigit()] == ["7"]
    checkpoint.drop(folder)
    assert not folder.exists() and checkpoint.load(folder, make_state(0)) is None


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file stands in the way; one line, as everywhere."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DistillError, match="cannot write the checkpoint .*make room there") as caught:
        checkpoint.save(tmp_path / "file" / "checkpoint", 3, make_state(3), {})
    assert "\n" not in str(caught.value)


def test_no_checkpoint_is_no_state(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint starts from the beginning."""
    assert checkpoint.load(tmp_path / "absent", make_state(0)) is None
    (tmp_path / "empty").mkdir()
    assert checkpoint.load(tmp_path / "empty", make_state(0)) is None
    checkpoint.drop(tmp_path / "absent")


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves a folder under another name; the state before it counts."""
    folder = tmp_path / "checkpoint"
    checkpoint.save(folder, 3, make_state(3), {})
    shutil.copytree(folder / "3", folder / "5.orbax-checkpoint-tmp")
    shutil.rmtree(folder / "5.orbax-checkpoint-tmp" / "state")
    found = checkpoint.load(folder, make_state(0))
    assert found is not None
    assert_equal_states(found[0], make_state(3))
    checkpoint.save(folder, 5, make_state(5), {})
    found = checkpoint.load(folder, make_state(0))
    assert found is not None
    assert_equal_states(found[0], make_state(5))


def load_or_reason(folder: Path, like: dict) -> tuple[dict, dict] | str:
    """The state, or the message of the error."""
    try:
        found = checkpoint.load(folder, like)
        assert found is not None
        return found
    except DistillError as error:
        return str(error)


@pytest.fixture
def orbax_swept() -> Iterator[None]:
    """Sweeps up Orbax's readers that a damaged file left unfinished, so that no later test is blamed for them."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("orbax_swept")
@pytest.mark.parametrize("damage", ["removed", "other model"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: str) -> None:
    """One line that names the folder to delete; it is neither loaded in part nor silently started over."""
    folder, like = tmp_path / "checkpoint", make_state(0)
    checkpoint.save(folder, 3, make_state(3), {})
    if damage == "removed":
        shutil.rmtree(folder / "3" / "state")
    else:
        like["params"]["head"]["kernel"] = jnp.zeros((5, 3))
    reason = load_or_reason(folder, like)
    assert isinstance(reason, str)
    assert reason.startswith(f"checkpoint {folder}/3 is damaged") and reason.endswith(f"delete {folder}.")
    assert "\n" not in reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("orbax_swept")
def test_a_truncated_checkpoint_is_told_or_harmless(tmp_path: Path) -> None:
    """Whichever of its files is cut off: an error in one line, or the very same numbers; never other numbers."""
    intact, like = tmp_path / "intact", make_state(0)
    checkpoint.save(intact, 3, make_state(3), {"seconds": 1.5})
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    refused = 0
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(intact, folder)
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        found = load_or_reason(folder, like)
        if isinstance(found, str):
            assert str(folder) in found and "\n" not in found
            refused += 1
            continue
        assert_equal_states(found[0], make_state(3))
        assert found[1] == {"seconds": 1.5}
    assert refused


def stop_at(step: int, recipe: Recipe, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains up to a step, before which the last checkpoint was written."""
    save = checkpoint.save

    def stop(folder: Path, done: int, *rest: object) -> None:
        if done == step:
            raise KeyboardInterrupt
        save(folder, done, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train.fit(recipe, results, checkpoint_seconds=0)


@pytest.mark.slow
def test_what_devices_share_is_taken_up_on_any_number_of_them(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shampoo's matrices: on as many devices the bits of an unbroken run, on one device its numbers, to rounding."""
    recipe = tiny.recipe(teacher, optimizer="shampoo", epochs=3.5)  # 14 steps, of which the last four take its own
    unbroken = train.fit(recipe, tmp_path / "unbroken")
    stop_at(13, recipe, tmp_path / "two", monkeypatch)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    assert assert_same(train.fit(recipe, tmp_path / "two").directory, unbroken)["resumed"] == 1
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    one = train.fit(recipe, tmp_path / "one")
    assert (one.record["resumed"], one.record["device_count"]) == (1, 1)
    np.testing.assert_allclose(one.rows[-1]["loss"], unbroken.rows[-1]["loss"], rtol=1e-3)


def test_a_resumed_run_tells_a_damaged_table(
    teacher: Path, tmp_path: Path, unbroken: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows before the stop come from metrics.csv; a damaged one must not become a curve with a hole."""
    stop_at(8, tiny.recipe(teacher, policy="mix", epochs=3), tmp_path, monkeypatch)
    table = tmp_path / "fashion_smoke" / unbroken.record["run_id"] / "metrics.csv"
    content = table.read_bytes()
    table.write_bytes(content[: content.rindex(b",")])
    with pytest.raises(DistillError, match=r"metrics.csv is damaged"):
        train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path)
    table.write_bytes(content)
    assert_same(train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path).directory, unbroken)


def test_two_processes_do_not_train_one_run(
    teacher: Path, unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is refused before it writes; the first goes on, and whoever comes later reuses its run."""
    folder = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    with checkpoint.alone(folder):
        before = sorted(os.listdir(folder))
        with pytest.raises(DistillError, match=f"{folder} is in use by another process: wait for it") as caught:
            train.fit(recipe, tmp_path)
        assert "\n" not in str(caught.value) and sorted(os.listdir(folder)) == before
    assert_same(train.fit(recipe, tmp_path).directory, unbroken)
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as where there are no such locks
    with checkpoint.alone(folder), checkpoint.alone(folder):
        pass


def test_what_a_kill_leaves_beside_a_finished_run_is_removed(teacher: Path, unbroken: Run, tmp_path: Path) -> None:
    """The record was written, and the checkpoint was not yet dropped."""
    shutil.copytree(unbroken.directory.parent, tmp_path / "fashion_smoke")
    folder = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    (folder / "checkpoint").mkdir()
    for name in ("recipe.json", ".metrics.csv.1.tmp"):
        (folder / name).write_text("left")
    assert train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path).reused
    assert_same(folder, unbroken)
