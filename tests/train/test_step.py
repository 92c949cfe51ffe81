"""One training step: in half precision as in full, with the running statistics of BatchNorm, and in another form."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tiny

from distill_lib import models, teachers, train, views, weights
from distill_lib.input_pipeline import sampler
from distill_lib.models import compression, mobilenets
from distill_lib.models.mobile_layers import Row
from distill_lib.recipes import Recipe
from distill_lib.train import setup, step
from distill_lib.train.task import Task
from distill_lib.views import Images

STUDENT = "mobilenet_v3_tiny_bn"


@pytest.fixture(autouse=True)
def with_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `STUDENT` known: two blocks of the mobile network with BatchNorm."""
    rows = (Row(3, 16, 16, False, "relu", 1), Row(3, 24, 16, True, "hard_swish", 2))
    monkeypatch.setitem(mobilenets.ROWS, "tiny", rows)
    monkeypatch.setitem(mobilenets.WIDTHS, "tiny", (24, 32))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a teacher of ten classes."""
    return tiny.write_teacher(tmp_path_factory.mktemp("teachers") / "teacher.npz")


def taken(recipe: Recipe, *, remat: bool = False) -> tuple[step.State, step.State]:
    """The state before and after the first step."""
    task = setup.prepare(recipe)
    start = step.initial_state(task.student, recipe.seed, task.image_shape)
    before = jax.device_get(start)
    learn = step.learn(task.student, recipe, remat=remat)
    return before, jax.device_get(learn(start, task.settings, first_lesson(task)))


def first_lesson(task: Task) -> step.Batch:
    """What the first step shows and answers."""
    recipe, images = task.recipe, task.train.arrays
    indices = sampler.batch_indices(recipe.seed, 0, recipe.batch_size, 64)
    assert task.teacher is not None
    source = Images(images.images, images.labels, indices=indices)
    return step.teach(recipe, task.asked[0], 10)(views.view_key(recipe.seed), 0, source, task.teacher.variables, 2.0)


@pytest.mark.slow
def test_half_precision_moves_a_student_as_full_precision_does(teacher: Path) -> None:
    """One step: the loss to 2 %, and the gradients' direction (Adam's first moment) to a cosine of 0.99.

    Parameters, statistics and optimiser state stay float32 but for the first moment, which is bfloat16 anyway.
    """
    full, half = (taken(tiny.recipe(teacher, dtype=dtype, warmup_steps=0))[1] for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype(np.float32)}
    assert half.loss_sum.dtype == np.float32
    np.testing.assert_allclose(half.loss_sum, full.loss_sum, rtol=0.02)
    assert half.loss_sum != full.loss_sum
    for ours, theirs in zip(jax.tree.leaves(moments(half)), jax.tree.leaves(moments(full)), strict=True):
        one, other = np.asarray(ours, np.float64).ravel(), np.asarray(theirs, np.float64).ravel()
        if np.linalg.norm(other) > 0:
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.99


def moments(state: step.State) -> dict:
    """Adam's first moments: after one step the gradients, but for their size."""
    parts = jax.tree.leaves(state.opt_state, is_leaf=lambda part: hasattr(part, "mu"))
    (found,) = [part.mu for part in parts if hasattr(part, "mu")]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("student", [tiny.STUDENT, STUDENT])
def test_rematerialisation_changes_no_result(teacher: Path, student: str) -> None:
    """What is computed twice is the same: loss, gradients and running statistics, to rounding."""
    recipe = tiny.recipe(teacher, student=student, warmup_steps=0)
    kept, again = (taken(recipe, remat=remat)[1] for remat in (False, True))
    pairs = zip(jax.tree.leaves((kept, moments(kept))), jax.tree.leaves((again, moments(again))), strict=True)
    for one, other in ((np.asarray(one, np.float64), np.asarray(other, np.float64)) for one, other in pairs):
        np.testing.assert_allclose(other, one, rtol=1e-2, atol=max(1e-6, 1e-2 * np.abs(one).max()))


@pytest.mark.slow
def test_running_statistics_follow_the_batches(teacher: Path) -> None:
    """After one step: 0.9 times the start and 0.1 times the batch's mean, of what the first convolution puts out."""
    recipe = tiny.recipe(teacher, student=STUDENT)
    before, after = taken(recipe)
    old, new = (state.statistics["batch_stats"]["stem"]["norm"] for state in (before, after))
    np.testing.assert_array_equal(old["mean"], 0)
    assert np.abs(new["mean"]).max() > 1e-3
    assert not np.allclose(new["var"], old["var"])

    task = setup.prepare(recipe)
    put_out = parity.features(task.student, before.variables, first_lesson(task).images)["stem/conv"]
    np.testing.assert_allclose(new["mean"], 0.1 * put_out.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_running_statistics_reach_record_checkpoint_and_evaluation(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student with BatchNorm trains on one device as on two, is saved whole, and predicts the same when loaded."""
    recipe = tiny.recipe(teacher, student=STUDENT, epochs=3, learning_rate=1e-3, evaluations=1)
    two = train.fit(recipe, tmp_path / "two")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    one = train.fit(recipe, tmp_path / "one")
    for name, value in weights.flatten(two.variables["batch_stats"]).items():
        np.testing.assert_allclose(value, weights.flatten(one.variables["batch_stats"])[name], rtol=0.01, atol=1e-3)

    stored = weights.unpack(weights.load_npz(two.directory / "student.npz"))
    assert stored.keys() == {"params", "batch_stats"}
    model = models.create(STUDENT, 10)
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)), jnp.float32)
    trained = models.logits(model, two.variables, images)
    np.testing.assert_array_equal(models.logits(model, stored, images), trained)
    fresh = models.init(model, jax.random.key(0), (8, 8, 1))["batch_stats"]
    assert not np.allclose(models.logits(model, stored | {"batch_stats": fresh}, images), trained)


@pytest.mark.slow
@pytest.mark.parametrize("student", [tiny.STUDENT, STUDENT])
@pytest.mark.parametrize("form", ["int3", "2:4"])
def test_a_student_is_judged_and_loaded_in_the_form_that_it_was_trained_in(
    teacher: Path, tmp_path: Path, student: str, form: str
) -> None:
    """What is saved are the weights that learn; whoever loads them has the network that the steps had."""
    recipe = tiny.recipe(teacher, student=student, compression=form)
    run = train.fit(recipe, tmp_path)
    loaded = teachers.load(str(run.directory / "student.npz"), num_classes=10, channels=1, resolution=8)
    task, (used,) = setup.prepare(recipe), loaded.variables
    again = task.eval_sets["test"].logits(loaded.ensemble, loaded.variables, 8)
    judged = task.output("test", run.variables)
    np.testing.assert_allclose(again, judged, rtol=1e-5, atol=1e-5)
    assert run.record["result"]["test_top1"] == (again.argmax(-1) == task.eval_sets["test"].labels).mean()
    kernel = used["params"]["head"]["kernel"]
    levels = [len(np.unique(channel)) for channel in kernel.T]
    assert max(levels) <= 7 if form == "int3" else ((kernel == 0).mean() >= 0.5)
    assert (run.variables["params"]["head"]["kernel"] != 0).mean() > 0.9, "weights that are zero in use learn, too"


@pytest.mark.slow
def test_the_step_rounds_as_it_is_done_afterwards(teacher: Path) -> None:
    """The loss of a step is that of the network in its form; BatchNorm's running statistics stay as they are."""
    recipe = tiny.recipe(teacher, student=STUDENT, compression="int3", warmup_steps=0)
    task = setup.prepare(recipe)
    start, numbers = models.init(task.student, jax.random.key(0), task.image_shape), np.random.default_rng(0)
    start["params"]["head"]["kernel"] = numbers.normal(size=(32, 10)).astype(np.float32)
    begun, batch = step.initial_state(task.student, 0, task.image_shape, start=start), first_lesson(task)
    before = jax.device_get(begun)
    after = step.learn(task.student, recipe)(begun, task.settings, batch)
    losses = {}
    for form in ("none", "int3"):
        answer = jax.jit(functools.partial(models.logits, *compression.frozen(task.student, before.variables, form)))
        losses[form] = step.loss(recipe, task.settings, answer(batch.images), batch).mean()
    np.testing.assert_allclose(after.loss_sum, losses["int3"], rtol=1e-4)
    assert abs(losses["none"] - losses["int3"]) > 0.01
    jax.tree.map(np.testing.assert_array_equal, after.statistics, before.statistics)
    moved = jax.tree.map(lambda old, new: np.abs(new - old).max() > 0, before.params, after.params)
    assert all(jax.tree.leaves(moved)), "the weights in float32 learn, and the norms too"
