"""A task: what a recipe's settings load, and what of it students are shown and judged by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from distill_lib import datasets, losses, recipes, sharding, train, weights
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.train import setup, step
from distill_lib.train.step import Batch

pytestmark = pytest.mark.usefixtures("tiny_models")


def first_lesson(recipe: Recipe) -> Batch:
    """What the first step shows."""
    mesh = sharding.data_mesh()
    return next(iter(setup.prepare(recipe).batches(0, mesh)))


@pytest.mark.parametrize("classes", [10, 3], ids=["same classes", "other classes"])
def test_a_student_may_start_from_a_checkpoint(classes: int, teacher: Path, tmp_path: Path) -> None:
    """Its weights are the file's; a head of other classes is replaced by zeros; the run has another name."""
    start = tmp_path / "start.npz"
    saved = tiny.random_params(tiny.STUDENT, classes, seed=5)
    weights.save_npz(start, saved, {"model": tiny.STUDENT})
    begun = setup.prepare(tiny.recipe(teacher, start=str(start)))
    params = jax.device_get(begun.initial_state().params)
    for name, value in weights.flatten(params).items():
        wanted = np.zeros_like(value) if name.startswith("head/") and classes != 10 else weights.flatten(saved)[name]
        np.testing.assert_array_equal(value, wanted, err_msg=name)
    other = setup.prepare(tiny.recipe(teacher))
    assert begun.run_id != other.run_id and begun.shared_batches == other.shared_batches, "they can be taught together"
    again = setup.prepare(tiny.recipe(teacher), [begun])
    assert again.start is None and again.run_id == other.run_id


def test_a_student_may_continue_a_run(teacher: Path, tmp_path: Path) -> None:
    """By the run's name, so that a record holds no path of a machine."""
    first = train.fit(tiny.recipe(teacher, epochs=2, warmup_steps=1, evaluations=1), tmp_path)
    name = f"run:{first.record['study']}/{first.record['run_id']}"
    begun = setup.prepare(tiny.recipe(teacher, start=name), results=tmp_path)
    found = weights.flatten(jax.device_get(begun.initial_state().params))
    for path, value in weights.flatten(first.variables["params"]).items():
        np.testing.assert_array_equal(found[path], value)
    with pytest.raises(DistillError, match="run:fashion_smoke/none has no student at .*: train that run first"):
        setup.prepare(tiny.recipe(teacher, start="run:fashion_smoke/none"), results=tmp_path)


def test_a_start_of_another_architecture_is_refused(teacher: Path, tmp_path: Path) -> None:
    """Before anything is trained, naming the file."""
    start = tmp_path / "wide.npz"
    weights.save_npz(start, tiny.random_params("bit_r11w8", 10), {"model": "bit_r11w8"})
    with pytest.raises(DistillError, match="wide.npz"):
        setup.prepare(tiny.recipe(teacher, start=str(start)))
    with pytest.raises(DistillError, match="no checkpoint at nowhere.npz"):
        setup.prepare(tiny.recipe(teacher, start="nowhere.npz"))


def test_transfer_images_are_shown_and_own_images_judge(teacher: Path, tmp_path: Path) -> None:
    """Training images are those of another set, in the student's colours; validation and test are its own set's.

    Labels of the other set name other classes, so accuracy on the training images is not in the record.
    """
    moved = setup.prepare(tiny.recipe(teacher, transfer_set="flowers", epochs=2, evaluations=1, warmup_steps=1))
    usual = setup.prepare(tiny.recipe(teacher, epochs=2))
    assert moved.image_shape == usual.image_shape and moved.run_id != usual.run_id
    assert moved.shared_batches != usual.shared_batches
    assert moved.train.arrays.images.shape[1:] != usual.train.arrays.images.shape[1:]
    result = train.fit(moved.recipe, tmp_path).record["result"]
    assert {"train_kl", "train_agreement", "test_top1", "validation_ece"} <= set(result)
    assert "train_top1" not in result and "train_ece" not in result


@pytest.mark.parametrize("policy", ["same/ic", "mix"])
def test_labels_ride_along_where_the_loss_asks_for_them(policy: str, teacher: Path) -> None:
    """Mixed as the images are, and absent from every other batch."""
    recipe = tiny.recipe(teacher, policy=policy, label_share=0.3)
    batch, without = first_lesson(recipe), first_lesson(tiny.recipe(teacher, policy=policy))
    assert without.labels is None
    np.testing.assert_array_equal(batch.images, without.images)
    np.testing.assert_array_equal(batch.targets, without.targets)
    assert batch.labels is not None
    shares = np.asarray(batch.labels)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    assert (np.count_nonzero(shares, axis=-1) > 1).any() == (policy == "mix")


def test_parts_of_the_loss_are_shared_out(teacher: Path) -> None:
    """(1 - share) of the distance and a share of the cross-entropy; another distance stands in for the divergence."""
    recipe = tiny.recipe(teacher, label_share=0.25, temperature=3.0, temperature_squared=False)
    begun, batch = setup.prepare(recipe), first_lesson(recipe)
    logits = jax.numpy.asarray(np.random.default_rng(0).normal(size=batch.targets.shape), jax.numpy.float32)

    def loss(**changes: Any) -> np.ndarray:
        return np.asarray(step.loss(dataclasses.replace(recipe, **changes), begun.settings, logits, batch))

    taught = loss()
    labels = losses.cross_entropy(logits, batch.labels)
    plain = losses.kl(logits, batch.targets, temperature=3.0, scaled=False)
    np.testing.assert_allclose(taught, 0.75 * plain + 0.25 * labels, rtol=1e-5)
    squared = losses.squared_euclidean(logits, batch.targets)
    np.testing.assert_allclose(loss(distance="l2"), 0.75 * squared + 0.25 * labels, rtol=1e-5)
    expected = losses.hard(logits, batch.targets, smoothing=0.1)
    smooth = tiny.recipe(teacher, distance="hard", label_smoothing=0.1)
    taught = step.loss(smooth, begun.settings, logits, batch._replace(labels=None))
    np.testing.assert_allclose(taught, expected, rtol=1e-6)
    np.testing.assert_allclose(
        loss(policy="labels", label_share=0.0), losses.cross_entropy(logits, batch.targets), rtol=1e-5
    )


@pytest.mark.parametrize(("dataset", "before"), [("fashion", ["train"]), ("flowers", ["train", "validation", "test"])])
def test_images_are_read_when_they_are_due(dataset: str, before: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come with the package, so that a run starts sooner; others beforehand, since some may be broken."""
    read, arrays = [], datasets.arrays

    def listed(*args: Any, split: str, **options: Any) -> datasets.Arrays:
        read.append(split)
        return arrays(*args, split=split, **options)

    monkeypatch.setattr(datasets, "arrays", listed)
    task = setup.prepare(recipes.get(dataset, "smoke", policy="labels"))
    assert read == before
    assert len(task.eval_sets["test"].labels) and sorted(read) == sorted({*before, "test"})
