"""A run that is killed at any moment and started again ends with the bits of one that was never killed."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from kills import killed_after

from distill_lib import datasets, records, train, weights
from distill_lib.errors import DistillError
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


checkpoint.save = announce(checkpoint.save, lambda folder, state, *_: f"saving {state.step}")
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
def begun(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of that run, stopped before step 8."""
    results = tmp_path_factory.mktemp("begun")
    with killed_after(saves=7):
        train.fit(tiny.recipe(teacher, policy="mix", epochs=3), results, checkpoint_seconds=0)
    return results


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
    assert not list(directory.glob("checkpoint*")) and not (directory / "run.json").exists()

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
    assert record["resumed"] == 3 and "parts" not in record


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


def load(folder: Path, like: dict) -> tuple[dict, dict]:
    """The newest state that is whole, and its facts."""
    saved = checkpoint.load(folder)
    assert saved is not None
    return jax.device_put(checkpoint.restored(saved[0], like), jax.tree.map(lambda leaf: leaf.sharding, like)), saved[1]


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Every bit, bfloat16 and sharding included, and the facts beside it; the one before is kept too."""
    folder = tmp_path / "res[1]*?"  # whatever the folder is called
    for done in (3, 7, 9):
        checkpoint.save(folder, make_state(done), {"seconds": done / 3, "rows": [{"loss": 1 / 3}]})
    state, facts = load(folder, make_state(0))
    assert_equal_states(state, make_state(9))
    assert facts == {"seconds": 3, "rows": [{"loss": 1 / 3}]}
    (folder / checkpoint.NEWEST).unlink()
    assert_equal_states(load(folder, make_state(0))[0], make_state(7))
    assert len(os.listdir(folder)) == 1


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file stands in the way; one line, as everywhere."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DistillError, match="cannot write .*make room there") as caught:
        checkpoint.save(tmp_path / "file", make_state(3), {})
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the remedy, no half-written file, and the run goes on from what was there."""
    checkpoint.save(tmp_path, make_state(3), {})
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
        with pytest.raises(DistillError, match=r"\(No space left on device\); make room there") as caught:
            checkpoint.save(tmp_path, make_state(5), {})
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == [checkpoint.BEFORE]
    assert_equal_states(load(tmp_path, make_state(0))[0], make_state(3))


def test_no_checkpoint_is_no_state(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint starts from the beginning; an earlier version's is told."""
    assert checkpoint.load(tmp_path / "absent") is None and checkpoint.load(tmp_path) is None
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(DistillError, match="checkpoint is of an earlier version"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("damage", ["bits", "cut"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    """Whichever bit is flipped, and wherever it is cut off: an error in one line, never other numbers."""
    checkpoint.save(tmp_path, make_state(3), {"seconds": 1.5})
    path = tmp_path / checkpoint.NEWEST
    content = path.read_bytes()
    for number in np.random.default_rng(0).integers(len(content), size=300):
        bad = bytearray(content)
        bad[number] ^= 1 << int(number) % 8
        path.write_bytes(bad if damage == "bits" else content[:number])
        with pytest.raises(DistillError, match="delete it") as caught:
            checkpoint.load(tmp_path)
        assert str(caught.value).startswith(f"{path} is damaged (") and "\n" not in str(caught.value)


def test_after_a_damaged_checkpoint_the_one_before_it_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is said, and the damaged one never takes the place of a whole one."""
    for done in (3, 5):
        checkpoint.save(tmp_path, make_state(done), {"resumed": done})
    newest = tmp_path / checkpoint.NEWEST
    newest.write_bytes(newest.read_bytes()[:-50])
    state, facts = load(tmp_path, make_state(0))
    assert_equal_states(state, make_state(3))
    assert facts == {"resumed": 3}
    assert f"{newest} is damaged" in (said := capsys.readouterr().err) and "the checkpoint before it" in said
    checkpoint.save(tmp_path, make_state(6), {})
    newest.write_bytes(b"")
    assert_equal_states(load(tmp_path, make_state(0))[0], make_state(3))


def test_a_checkpoint_of_other_shapes_is_told(tmp_path: Path) -> None:
    """As changed code may want them."""
    checkpoint.save(tmp_path, make_state(3), {})
    like = make_state(0)
    like["params"]["head"]["kernel"] = jnp.zeros((5, 3))
    with pytest.raises(DistillError, match="does not fit what this version of the code trains; delete it"):
        load(tmp_path, like)


@pytest.mark.slow
def test_what_devices_share_is_taken_up_on_any_number_of_them(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shampoo's matrices: on as many devices the bits of an unbroken run, on one device its numbers, to rounding."""
    recipe = tiny.recipe(teacher, optimizer="shampoo", epochs=3.5)  # 14 steps, of which the last four take its own
    unbroken = train.fit(recipe, tmp_path / "unbroken")
    with killed_after(saves=12):
        train.fit(recipe, tmp_path / "two", checkpoint_seconds=0)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    assert assert_same(train.fit(recipe, tmp_path / "two").directory, unbroken)["resumed"] == 1
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(DistillError, match=r"begun otherwise \(device_count was 2 and is 1\).* resume_changed=True"):
        train.fit(recipe, tmp_path / "one")
    one = train.fit(recipe, tmp_path / "one", resume_changed=True)
    assert (one.record["resumed"], one.record["device_count"]) == (1, 1)
    assert one.record["parts"] == [{"step": 12, "changed": {"device_count": [2, 1]}}]
    np.testing.assert_allclose(one.rows[-1]["loss"], unbroken.rows[-1]["loss"], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"code": "abc"}, "code was '.*' and is 'abc'"),
        ({"device": "CPU, 0 cores (x86_64)"}, "device was '.*' and is 'CPU, 0 cores"),
        ({"versions": {"jax": "9"}}, "versions/jax was '.*' and is '9'"),
        ({"settings": {"jax_enable_x64": True}}, "settings/jax_enable_x64 was False and is True"),
    ],
)
def test_a_run_that_was_begun_otherwise_is_not_taken_up_unasked(
    change: dict, told: str, begun: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference is shown, in one line, before anything is trained or changed; asked for it is in the record."""
    shutil.copytree(begun, tmp_path / "results")
    circumstances = records.circumstances() | change
    monkeypatch.setattr(records, "circumstances", lambda: circumstances)
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    with pytest.raises(DistillError, match=f"was begun otherwise .*{told}.*say resume_changed=True") as caught:
        train.fit(recipe, tmp_path / "results")
    assert "\n" not in str(caught.value)
    run = train.fit(recipe, tmp_path / "results", resume_changed=True)
    (part,) = run.record["parts"]
    assert part["step"] == 7 and next(iter(change)) in str(part["changed"])
    assert train.fit(recipe, tmp_path / "results").reused, "what is finished is a record, whatever reads it"


def test_another_seeds_checkpoint_is_refused(begun: Path, teacher: Path, tmp_path: Path) -> None:
    """Copied into the folder of a run, it would be accepted without a word: it has the same shapes."""
    recipe = tiny.recipe(teacher, policy="mix", epochs=3, seed=1)
    folder = tmp_path / "fashion_smoke" / recipe.run_id(weights.sha256(teacher))
    folder.mkdir(parents=True)
    shutil.copy(next(begun.glob(f"*/*/{checkpoint.NEWEST}")), folder)
    for resume_changed in (False, True):
        with pytest.raises(DistillError, match=r"the checkpoint in .* is another run's \(seed was 0 and is 1\)"):
            train.fit(recipe, tmp_path, resume_changed=resume_changed)


@pytest.mark.parametrize("content", [None, "", "step,loss\n3,7"])
def test_a_resumed_run_does_without_the_table_beside_its_checkpoint(
    content: str | None, begun: Path, teacher: Path, tmp_path: Path, unbroken: Run
) -> None:
    """Lost, emptied or damaged, it neither costs rows nor shifts a loss: rows lie in the checkpoint."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    if content is not None:
        (tmp_path / "fashion_smoke" / unbroken.record["run_id"] / "metrics.csv").write_text(content)
    assert_same(train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path).directory, unbroken)


def test_a_finished_run_is_reused_only_if_it_is_the_same(teacher: Path, unbroken: Run, tmp_path: Path) -> None:
    """Two recipes may share a name, which has 32 bits of a hash: the recipe decides."""
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    folder = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    other = unbroken.record | {"recipe": dataclasses.asdict(dataclasses.replace(recipe, learning_rate=0.5))}
    records.write(folder, other, unbroken.rows)
    with pytest.raises(DistillError, match=r"the record in .*another run's \(learning_rate was 0.5 and is 0.01\)"):
        train.fit(recipe, tmp_path)
    shutil.copytree(unbroken.directory, folder, dirs_exist_ok=True)
    (folder / "metrics.csv").write_bytes(b"")
    with pytest.raises(DistillError, match=r"metrics.csv is damaged"):
        train.fit(recipe, tmp_path)


def test_other_data_of_the_same_name_are_neither_reused_nor_taken_up(
    begun: Path, unbroken: Run, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that was prepared anew, or pictures with other pixels: the digest of what they hold tells."""
    shutil.copytree(begun, tmp_path / "begun")
    shutil.copytree(unbroken.directory, tmp_path / "finished" / "fashion_smoke" / unbroken.directory.name)
    monkeypatch.setattr(datasets, "digest", lambda *_, **__: "0123")
    recipe = tiny.recipe(teacher, policy="mix", epochs=3)
    with pytest.raises(DistillError, match=r"begun otherwise \(data was '\w+' and is '0123'\)"):
        train.fit(recipe, tmp_path / "begun")
    with pytest.raises(DistillError, match=r"record in .* is of other data of this name \(digest \w+, and now 0123\)"):
        train.fit(recipe, tmp_path / "finished")


def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path: Path) -> None:
    """Whoever put it there."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / checkpoint.LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(DistillError, match=r"cannot write .*\.lock"), checkpoint.alone(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


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
    """The record was written, and the checkpoint not yet dropped; what is new may be another's that adds to it."""
    shutil.copytree(unbroken.directory.parent, tmp_path / "fashion_smoke")
    folder = tmp_path / "fashion_smoke" / unbroken.record["run_id"]
    for name in ("recipe.json", ".metrics.csv.1.tmp", ".lock", *checkpoint.KEPT):
        (folder / name).write_text("left")
    os.utime(folder / ".metrics.csv.1.tmp", (0, 0))
    (folder / ".run.json.2.tmp").write_text("being written by another process")
    assert train.fit(tiny.recipe(teacher, policy="mix", epochs=3), tmp_path).reused
    (folder / ".run.json.2.tmp").unlink()
    assert_same(folder, unbroken)
