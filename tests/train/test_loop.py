"""Training: every kind of policy learns, teacher and student agree on what they see, and what goes wrong is told."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from distill_lib import datasets, optim, records, train, views, weights
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import sampler
from distill_lib.train import Run, setup, step
from distill_lib.views import Images

pytestmark = pytest.mark.usefixtures("tiny_models")

KINDS = {"labels": "labels", "fixed": "fix/cc", "independent": "ind/ic", "same": "same/ic", "mixed": "mix"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder that the runs of this module share."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def run_of(teacher: Path, results: Path) -> Callable[[str], Run]:
    """A finished run of a policy; trained once."""
    return functools.cache(lambda policy: train.fit(tiny.recipe(teacher, policy=policy), results))


def snapshot(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("policy", KINDS.values(), ids=KINDS)
def test_a_student_learns(policy: str, run_of: Callable[[str], Run]) -> None:
    """The mean loss falls from quarter to quarter; a taught student nears its teacher on images it is not shown.

    Labels of made-up images can only be learnt by heart, so there the loss falls little.
    """
    first, *_, last = run_of(policy).rows
    assert last["loss"] < (0.2 if policy in views.POLICIES else 0.99) * first["loss"]
    if policy in views.POLICIES:
        assert last["validation_kl"] < 0.2 * first["validation_kl"]


@pytest.mark.slow
def test_a_run_leaves_a_record_and_a_student(run_of: Callable[[str], Run], results: Path, teacher: Path) -> None:
    """run.json, metrics.csv and the student, nothing else; all say the same as what `fit` returns."""
    run = run_of("same/ic")
    assert sorted(os.listdir(run.directory)) == ["metrics.csv", "run.json", "student.npz"]
    recipe = tiny.recipe(teacher)
    assert run.directory == results / "fashion_smoke" / recipe.run_id(weights.sha256(teacher))
    record = json.loads((run.directory / "run.json").read_text())
    assert record == json.loads(json.dumps(run.record))
    assert record["mock"] is True and record["steps"] == 40 and record["resumed"] == 0
    assert record["teacher"] == {"name": str(teacher), "sha256": weights.sha256(teacher)}
    assert record["result"]["train_loss"] == run.rows[-1]["loss"]
    expected = {
        f"{split}_{name}" for split in datasets.SPLITS for name in ("top1", "ece", "kl", "agreement", "agreement@5")
    }
    expected |= {"validation_cka", "test_cka"}
    assert set(record["result"]) == expected | {"train_loss"}
    assert record["result"]["validation_kl"] == run.rows[-1]["validation_kl"]
    assert records.read_rows(run.directory, run.record) == run.rows
    stored = weights.flatten(weights.load_npz(run.directory / "student.npz"))
    for name, value in weights.flatten(weights.pack(run.variables)).items():
        np.testing.assert_array_equal(stored[name], value)
    assert weights.load_metadata(run.directory / "student.npz")["model"] == tiny.STUDENT


def test_a_report_says_where_the_schedule_stands(run_of: Callable[[str], Run]) -> None:
    """Rows at equal distances up to the last step, with epoch and learning rate of that step."""
    rows = run_of("same/ic").rows
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert [row["epoch"] for row in rows] == [2.5, 5, 7.5, 10]
    schedule = optim.multiplier("cosine", 40, 4)
    for row in rows:
        np.testing.assert_allclose(row["learning_rate"], 1e-2 * schedule(jax.numpy.asarray(row["step"])), rtol=1e-5)
        assert row["largest_loss"] > row["loss"] and row["largest_gradient"] > 0
    assert rows[-1]["largest_loss"] < rows[0]["largest_loss"]  # of the steps since the report before


def test_label_baselines_need_no_teacher(run_of: Callable[[str], Run]) -> None:
    """No teacher is loaded, and nothing is said about one."""
    record = run_of("labels").record
    assert record["teacher"] is None
    assert not {name for name in record["result"] if name.endswith(("kl", "agreement", "agreement@5", "cka"))}


@pytest.mark.parametrize("policy", ["same/ic", "mix", "ind/ic"])
def test_a_student_that_equals_its_teacher_has_no_loss_if_both_see_the_same(
    policy: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consistency of the whole training step: only where the two see different pictures do they disagree."""

    def start_at_the_teacher(*_: Any, **__: Any) -> step.State:
        params = jax.tree.map(jax.numpy.asarray, weights.load_npz(teacher))
        opt_state = optim.create("adam", 1.0, 0.0, total_steps=1, warmup_steps=0).init(params)
        zero = jax.numpy.zeros((), jax.numpy.int32)
        return step.State(zero, params, {}, opt_state, jax.numpy.zeros(()), *jax.numpy.zeros((2, 2)))

    monkeypatch.setattr(step, "initial_state", start_at_the_teacher)
    recipe = tiny.recipe(teacher, policy=policy, learning_rate=1e-12, weight_decay=0, seed=1)
    run = train.fit(recipe, tmp_path)
    if policy == "ind/ic":
        assert min(row["loss"] for row in run.rows) > 1e-2
    else:
        assert max(row["loss"] for row in run.rows) < 1e-5
        assert run.record["result"]["test_agreement"] == 1.0
    assert run.record["result"]["test_cka"] == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_step_is_what_its_parts_say(teacher: Path) -> None:
    """The first loss of function matching, put together by hand from loader, views, models and the plain formula."""
    recipe = tiny.recipe(teacher, policy="mix", mixup="example")
    task = setup.prepare(recipe)
    batch = task.train.arrays.images[sampler.batch_indices(recipe.seed, 0, 16, 64)]
    student = step.initial_state(task.student, recipe.seed, (8, 8, 1))
    assert task.teacher is not None
    key = jax.random.fold_in(views.view_key(recipe.seed), 0)

    @jax.jit
    def by_hand(student: dict, teacher: dict) -> tuple[jax.Array, jax.Array]:
        view = views.sample(key, 16, mixup="example", area=(0.25, 1.0))
        shown = views.render(jax.numpy.asarray(batch), view, 8)
        return [task.student.apply(variables, shown) for variables in (student, teacher)]

    unfolded = {"params": weights.load_npz(teacher)}
    ours, theirs = (np.asarray(logits, np.float64) / 2 for logits in by_hand(student.variables, unfolded))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (theirs, ours))
    expected = np.mean(4 * (p * np.log(p / q)).sum(-1))
    indices, train_set = sampler.batch_indices(recipe.seed, 0, 16, 64), task.train.arrays
    batch = step.teach(recipe, task.asked[0], 10)(
        views.view_key(recipe.seed), 0, Images(*train_set[:2], indices=indices), task.teacher.variables, 2.0
    )
    after = step.learn(task.student, recipe)(student, task.settings, batch)
    np.testing.assert_allclose(after.loss_sum, expected, rtol=1e-4)
    assert int(after.step) == 1


@pytest.mark.slow
def test_one_device_and_two_give_the_same_result(
    run_of: Callable[[str], Run], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding: the number of devices changes the order of sums and nothing else."""
    two = run_of("mix")
    assert two.record["device_count"] == jax.device_count() == 2
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    one = train.fit(tiny.recipe(teacher, policy="mix"), tmp_path)
    assert one.record["run_id"] == two.record["run_id"] and one.record["device_count"] == 1
    assert not one.reused
    np.testing.assert_allclose(one.rows[0]["loss"], two.rows[0]["loss"], rtol=1e-3)
    np.testing.assert_allclose(one.rows[-1]["loss"], two.rows[-1]["loss"], rtol=2e-2)


def test_seeds_give_runs_of_their_own(run_of: Callable[[str], Run], teacher: Path, results: Path) -> None:
    """Another seed, another folder and another course."""
    other = train.fit(tiny.recipe(teacher, policy="same/ic", seed=5), results)
    assert other.directory != run_of("same/ic").directory
    assert other.rows[0]["loss"] != run_of("same/ic").rows[0]["loss"]


def test_a_finished_run_is_reused(
    run_of: Callable[[str], Run],
    teacher: Path,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second call trains nothing, says so, changes no file and returns the same."""
    first = run_of("same/ic")
    before = snapshot(results)
    monkeypatch.setattr(step, "learn", lambda *_: pytest.fail("trained again"))
    capsys.readouterr()
    again = train.fit(tiny.recipe(teacher), results)
    assert f"{first.record['run_id']}: reused, finished on" in capsys.readouterr().out
    assert again.reused and not first.reused
    assert again.rows == first.rows and again.record == json.loads(json.dumps(first.record))
    jax.tree.map(np.testing.assert_array_equal, again.variables, jax.tree.map(np.asarray, first.variables))
    assert snapshot(results) == before


def test_a_diverging_run_stops_with_one_clear_error(run_of: Callable[[str], Run], teacher: Path, results: Path) -> None:
    """Not-a-number is told with its remedy; no record is written, and earlier ones are as they were."""
    run_of("same/ic")
    before = snapshot(results)
    recipe = tiny.recipe(teacher, learning_rate=1e38)
    for _ in range(2):  # a second try says the same
        with pytest.raises(DistillError, match=r"the loss is (nan|inf) by step 10; lower learning_rate") as caught:
            train.fit(recipe, results)
        assert "\n" not in str(caught.value)
    folder = results / "fashion_smoke" / recipe.run_id(weights.sha256(teacher))
    assert not (folder / "run.json").exists()
    assert {path: content for path, content in snapshot(results).items() if folder not in path.parents} == before
    assert recipe.run_id(weights.sha256(teacher)) not in set(records.read(results, mock=True)["run_id"])


def test_a_results_folder_that_cannot_be_written_is_told_before_training(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands in its place."""
    monkeypatch.setattr(step, "learn", lambda *_: pytest.fail("trained"))
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(DistillError, match="cannot write .*make the folder writable or name another") as caught:
        train.fit(tiny.recipe(teacher), tmp_path / "results")
    assert "\n" not in str(caught.value)


def test_a_damaged_record_is_told_and_kept(
    run_of: Callable[[str], Run], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncated run.json is neither reused nor silently overwritten."""
    monkeypatch.setattr(step, "learn", lambda *_: pytest.fail("trained"))
    recipe = tiny.recipe(teacher)
    folder = tmp_path / "fashion_smoke" / recipe.run_id(weights.sha256(teacher))
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"schema": 2, ')
    with pytest.raises(DistillError, match="run.json is damaged .*delete its folder and run it again"):
        train.fit(recipe, tmp_path)
    assert (folder / "run.json").read_text() == '{"schema": 2, '


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 66}, r"batch_size 66 is larger than the data \(64 training images\)"),
        ({"batch_size": 15}, "batch_size 15 cannot be shared by 2 devices; choose a multiple"),
        ({"epochs": 1}, "1 epochs of 64 images are 4 steps, not more than the 4 warm-up steps"),
        ({"train_images": 1_021}, "choose a limit from 1 to 1020, not 1021"),
        ({"student": "bit_r99w8"}, "unknown model 'bit_r99w8'"),
        ({"teacher": "nobody"}, "unknown teacher 'nobody'"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is_written(
    settings: dict, message: str, teacher: Path, tmp_path: Path
) -> None:
    """One line that says what to choose, and no trace in the results."""
    with pytest.raises(DistillError, match=message) as caught:
        train.fit(tiny.recipe(**({"teacher": teacher} | settings)), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_fewer_training_images_are_the_first_ones(teacher: Path) -> None:
    """`train_images` shortens the training split alone."""
    task = setup.prepare(tiny.recipe(teacher, train_images=32))
    whole = setup.prepare(tiny.recipe(teacher))
    np.testing.assert_array_equal(task.train.arrays.images, whole.train.arrays.images[:32])
    assert len(task.eval_sets["test"].labels) == 64 and task.total_steps == 20
