"""Stored answers in training: the batches are those of the live teacher, and nobody asks it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import tiny

from distill_lib import cli, records, sharding, train, weights
from distill_lib.errors import DistillError
from distill_lib.models.ensemble import Ensemble
from distill_lib.recipes import Recipe
from distill_lib.report import aggregate
from distill_lib.teachers import soft_labels
from distill_lib.train import Run, record_soft_labels, setup, task
from distill_lib.train.step import Batch

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_labels, "SHARD_STEPS", 5)


@pytest.fixture(scope="module")
def stored(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Recipe, Path]]:
    """Makes a recipe of 12 steps and the folder with its teacher's answers."""

    def make(kept: int = 10, loading: str = "auto", **settings) -> tuple[Recipe, Path]:
        recipe = tiny.recipe(teacher, **({"epochs": 3, "policy": "mix"} | settings))
        folder = tmp_path_factory.mktemp("answers")
        record_soft_labels.store(recipe, folder, kept, loading=loading, workers=0)
        return recipe, folder

    return make


def some(work: task.Task, start: int, count: int) -> list[Batch]:
    """A few batches from a step on."""
    mesh = sharding.data_mesh()
    given = work.batches(start, mesh)
    found = [jax.device_get(batch) for batch in islice(given, count)]
    given.close()
    return found


@pytest.mark.parametrize(
    ("policy", "loading", "kept"),
    [
        ("mix", "device", 10),
        ("ind/ic", "device", 10),
        ("same/ic", "device", 9),
        ("ind/ic", "stream", 9),
    ],
)
def test_replayed_lessons_are_the_live_ones(policy: str, loading: str, kept: int, stored: Callable) -> None:
    """Bit for bit what is shown, and to half precision what is wanted; from any step on, across shards and epochs."""
    recipe, folder = stored(kept, loading, policy=policy)
    live = setup.prepare(recipe, loading=loading, workers=0)
    replay = setup.prepare(recipe, [live], loading=loading, workers=0, replay=folder)
    for start in (0, 4):
        for ours, theirs in zip(some(replay, start, 7), some(live, start, 7), strict=True):
            np.testing.assert_array_equal(ours.images, theirs.images)
            found, expected = jax.nn.softmax(ours.targets), jax.nn.softmax(theirs.targets)
            np.testing.assert_allclose(found, expected, atol=5e-4)


@pytest.mark.slow
def test_a_student_of_stored_answers_ends_where_the_live_one_does(
    stored: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly; its teacher says nothing in the steps; name and record tell the runs apart."""
    recipe, folder = stored()
    live = train.fit(recipe, tmp_path)
    with monkeypatch.context() as patch:
        asked: list[int] = []
        original = Ensemble.logits
        patch.setattr(Ensemble, "logits", lambda *given: (asked.append(1), original(*given))[1])
        some(setup.prepare(recipe, replay=folder), 0, 3)
        assert not asked
    run = train.fit(recipe, tmp_path, replay=folder)
    for ours, theirs in zip(run.rows, live.rows, strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0.02)
    assert run.directory.parent == live.directory.parent and run.directory != live.directory
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    told = {"kept": 10, "bytes": size, "views": 12 * 16, "bytes_per_view": round(size / 192, 2)}
    assert run.record["teacher"] == live.record["teacher"] | {"stored": told}
    assert run.record["recipe"] == live.record["recipe"] | {"stored": 10}
    assert run.record["result"].keys() == live.record["result"].keys(), "fidelity too"
    table = records.read(tmp_path, mock=True).assign(study="fashion_short", train_images=None)
    several = pd.concat([table, table[table["stored"].notna()]])
    assert len(several) == 3
    assert aggregate.study(several)["run_id"].tolist() == [live.record["run_id"]], (
        "no figure mixes them, whatever the majority"
    )


def test_a_class_replays_one_store(stored: Callable, tmp_path: Path) -> None:
    """Students of several settings share the answers, and each equals the same student alone."""
    recipe, folder = stored()
    several = train.grid(recipe, learning_rate=[1e-3, 1e-2], temperature=[1, 5])
    runs = train.sweep(several, tmp_path / "class", replay=folder)
    assert all(isinstance(run, Run) and run.record["students_per_step"] == 4 for run in runs)
    alone = train.fit(several[-1], tmp_path / "alone", replay=folder)
    assert isinstance(runs[-1], Run) and runs[-1].rows == alone.rows


def test_storing_goes_on_after_a_kill_and_to_more_steps(
    stored: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers as without; a shorter schedule replays the longer store."""
    recipe, whole = stored()
    folder, added = tmp_path / "answers", []
    original = soft_labels.Store.add

    def add_then_stop(self: soft_labels.Store, *given) -> soft_labels.Store:
        if added:
            raise KeyboardInterrupt
        added.append(1)
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(soft_labels.Store, "add", add_then_stop)
        with pytest.raises(KeyboardInterrupt):
            record_soft_labels.store(recipe, folder, 10)
    assert soft_labels.load(folder).steps == 5
    with pytest.raises(DistillError, match="soft labels for 5 steps, this run has 12"):
        setup.prepare(recipe, replay=folder)
    shorter = dataclasses.replace(recipe, epochs=2.0)
    assert record_soft_labels.store(shorter, folder, 10).steps == 8
    assert record_soft_labels.store(recipe, folder, 10).steps == 12
    for path in whole.glob("*.npz"):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    setup.prepare(shorter, replay=folder)


@pytest.fixture(scope="module")
def nine(stored: Callable) -> tuple[Recipe, Path]:
    """Nine of ten logits."""
    return stored(9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "holds soft labels for seed 0, this run has seed 1"),
        ({"policy": "same/ic"}, "policy mix, this run has policy same/ic"),
        ({"resolution": 7}, "resolution 8, this run has resolution 7"),
        ({"batch_size": 8}, "batch_size 16, this run has batch_size 8"),
        ({"crop_area": (0.1, 1.0)}, r"crop_area \[0.25, 1.0\], this run has crop_area \[0.1, 1.0\]"),
        ({"mixup": "example"}, "mixup batch, this run has mixup example"),
        ({"train_images": 48}, "examples 64, this run has examples 48"),
        ({"temperature": 5}, "temperature 2.0, this run has temperature 5.0"),
        ({"distance": "l2"}, "which the distance l2 cannot do with: choose kl or hard"),
        ({"stored": 3}, "keeps 9 logits of each answer, not 3"),
        ({"policy": "labels"}, "policy labels asks no teacher in its steps"),
        ({"policy": "fix/cc"}, "policy fix/cc asks no teacher in its steps"),
        ({"epochs": 4}, "soft labels for 12 steps, this run has 16"),
    ],
)
def test_another_run_is_refused_before_anything_is_written(
    settings: dict, message: str, nine: tuple[Recipe, Path], tmp_path: Path
) -> None:
    """SoftLabels to other views are wrong answers; one line with both values."""
    recipe, folder = nine
    with pytest.raises(DistillError, match=message) as caught:
        train.fit(dataclasses.replace(recipe, **settings), tmp_path, replay=folder)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_answers_are_fetched_after_later_ones_were_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the device works on while a shard is written, be it of one step; their order stays."""
    events: list[str] = []
    monkeypatch.setattr(jax, "device_get", lambda item: events.append(f"fetch {item}") or item)
    given = (events.append(f"begin {number}") or number for number in range(4))
    assert list(record_soft_labels.fetched(given, 2)) == [0, 1, 2, 3]
    begun = [f"begin {number}" for number in range(4)]
    assert events == [*begun[:3], "fetch 0", begun[3], "fetch 1", "fetch 2", "fetch 3"]


def test_shards_of_one_step_hold_the_same_answers(
    stored: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the brightness of its own views."""
    recipe, folder = stored()
    monkeypatch.setattr(soft_labels, "SHARD_BYTES", 1)
    small, large = record_soft_labels.store(recipe, tmp_path, 10), soft_labels.load(folder)
    assert small.shard_steps == 1 and len(list(tmp_path.glob("*.npz"))) == 12
    for number in range(12):
        jax.tree.map(np.testing.assert_array_equal, small.read(number), large.read(number))
    for batch, number in zip(some(setup.prepare(recipe), 0, 6), range(6), strict=True):
        small.check(number, batch.images)


def test_two_that_store_at_once_are_told_apart(
    stored: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits, and so no folder holds the soft labels of two teachers."""
    recipe, _ = stored()
    original, other = soft_labels.begin, tmp_path.with_suffix(".npz")
    weights.save_npz(other, tiny.random_params(tiny.STUDENT, 10, seed=9), {"model": tiny.STUDENT})

    def begin_twice(*given, **named) -> soft_labels.Store:
        monkeypatch.setattr(soft_labels, "begin", original)
        with pytest.raises(DistillError, match=f"{tmp_path} is in use by another process: wait for it"):
            record_soft_labels.store(dataclasses.replace(recipe, teacher=str(other)), tmp_path, 10)
        return original(*given, **named)

    monkeypatch.setattr(soft_labels, "begin", begin_twice)
    assert record_soft_labels.store(recipe, tmp_path, 10).steps == 12
    assert not (tmp_path / ".lock").exists()


def test_another_teacher_is_refused(nine: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Told by the hash of its file, whatever its name; and who wants stored soft labels has to say where they lie."""
    recipe, folder = nine
    path = tmp_path / "teacher.npz"
    weights.save_npz(path, tiny.random_params(tiny.STUDENT, 10, seed=9), {"model": tiny.STUDENT})
    with pytest.raises(DistillError, match="soft labels for teacher [0-9a-f]{64}, this run has teacher [0-9a-f]{64}"):
        setup.prepare(dataclasses.replace(recipe, teacher=str(path)), replay=folder)
    with pytest.raises(DistillError, match=r"stored = 9 wants stored soft labels: name their folder \(replay\)"):
        setup.prepare(dataclasses.replace(recipe, stored=9))


def test_the_command_stores_and_tells_what_is_wrong(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command, which can be repeated; one line and an exit code where a name or a number is wrong."""
    recipe = tiny.recipe(teacher, epochs=3, policy="mix")
    names = ("policy", "student", "teacher", "epochs", "batch_size", "resolution", "warmup_steps")
    settings = [word for name in names for word in ("-p", name, str(getattr(recipe, name)))]
    command = [str(tmp_path / "answers"), "--keep", "99", "-p", "variant", "smoke", *settings]
    for _ in range(2):
        assert cli.main(["soft-labels", *command]) == 0
        assert "12 steps, 192 views, 10 logits of each" in capsys.readouterr().out
    setup.prepare(recipe, replay=tmp_path / "answers")
    for words, message in {
        ("--keep", "0"): "at least 1 logit of each has to be kept, got 0",
        ("-p", "policy", "fix/cc"): "policy fix/cc asks no teacher in its steps: there is nothing to store",
        ("-p", "polcy", "mix"): "unknown recipe setting 'polcy'. Did you mean 'policy'?",
        ("-p", "seed", "1"): "holds soft labels for seed 0, this run has seed 1",
    }.items():
        assert cli.main(["soft-labels", *command, *words]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and message in said and said.count("\n") == 1
