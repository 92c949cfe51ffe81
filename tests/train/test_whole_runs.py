"""Whole runs against an independent one: the loop, the loss, the gradient and the optimiser, all in double precision.

The student is linear, so that its gradient is a formula, and Adam, weight decay and schedule are written out from the
paper's text. Which images a step shows, and how they are cropped and mixed, is taken from `sampler` and `views`, which
have tests of their own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
import tiny

from distill_lib import models, views
from distill_lib.input_pipeline import sampler
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.teachers import Teacher
from distill_lib.train import Run, loop, setup
from distill_lib.train.task import Task

STEPS, WARMUP, BATCH, PIXELS, CLASSES = 16, 3, 16, 64, 10
RATE, DECAY, TEMPERATURE = 1e-2, 1e-2, 2.0
TOLERANCE = 1e-4  # of a loss; of the way that the farthest weight went, for the mean over weights


class Flat(nn.Module):
    """Logits that are a linear map of the pixels, with a bias, which no weight decay shrinks."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, side, side, 1) to logits (batch, CLASSES)."""
        return nn.Dense(CLASSES, name="head")(images.reshape(len(images), -1))


def softmax(logits: np.ndarray) -> np.ndarray:
    """The plain formula."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def shown(images: np.ndarray, view: views.View) -> np.ndarray:
    """Rendered images as rows of pixels, float64."""
    return np.asarray(views.render(images, view, tiny.SIDE), np.float64).reshape(len(images), -1)


def half(value: np.ndarray | float) -> np.ndarray:
    """Rounded to bfloat16, in which optax keeps Adam's first moment; it rounds what it multiplies it by, too."""
    return np.asarray(value).astype(ml_dtypes.bfloat16).astype(np.float64)


def wanted(task: Task, teacher: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a step: the student's pixels (batch, pixels) and the wanted probabilities (batch, classes), both float64."""
    recipe, policy = task.recipe, views.policy(task.recipe.policy)
    chosen = sampler.batch_indices(recipe.seed, number, BATCH, len(task.train))
    images = task.train.arrays.images[chosen]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), 1), number)
    first, second = views.pair(key, policy, BATCH, area=recipe.crop_area)
    if policy.relation == "none":
        return shown(images, second), np.eye(CLASSES)[task.train.arrays.labels[chosen]]
    if policy.relation == "fixed":
        first = views.sample(key, BATCH, crop="central", flip=False)
    return shown(images, second), softmax(shown(images, first) @ teacher / TEMPERATURE)


def by_hand(task: Task, teacher: np.ndarray) -> tuple[dict[str, np.ndarray], list[float]]:
    """The weights after all steps, and the loss of each step."""
    start = task.initial_state().params["head"]
    weights = {name: np.asarray(value, np.float64) for name, value in start.items()}
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second, losses = dict(first), []
    t = TEMPERATURE if task.teacher else 1.0
    for step in range(STEPS):
        pixels, target = wanted(task, teacher, step)
        predicted = softmax((pixels @ weights["kernel"] + weights["bias"]) / t)
        logs = np.log(np.maximum(target, 1e-300))
        losses.append(t**2 * (target * (logs - np.log(predicted))).sum(-1).mean())
        gap = t * (predicted - target) / BATCH
        gradients = {"kernel": pixels.T @ gap, "bias": gap.sum(0)}
        length = max(1.0, np.sqrt(sum((gradient**2).sum() for gradient in gradients.values())))
        fallen = max(step - WARMUP, 0) / (STEPS - WARMUP)
        schedule = min(1.0, step / WARMUP) * (1 + np.cos(np.pi * fallen)) / 2
        for name, gradient in gradients.items():
            mean = half(0.9) * first[name] + 0.1 * gradient / length
            second[name] = 0.999 * second[name] + 0.001 * (gradient / length) ** 2
            deviation = np.sqrt(second[name] / (1 - 0.999 ** (step + 1)))
            update = RATE * mean / (1 - 0.9 ** (step + 1)) / (deviation + 1e-8)
            decayed = DECAY * weights[name] if name == "kernel" else 0.0
            weights[name] = weights[name] - schedule * (update + decayed)
            first[name] = half(mean)
    return weights, losses


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["labels", "fix/cc", "ind/ic", "same/ic", "mix"])
def test_a_whole_run_ends_where_the_written_out_formulas_end(
    policy: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of all steps, and the weights after the last."""
    recipe = tiny.recipe(teacher, policy=policy, epochs=4, warmup_steps=WARMUP, learning_rate=RATE, weight_decay=DECAY)
    recipe = dataclasses.replace(recipe, temperature=TEMPERATURE, evaluations=STEPS)
    kernel = np.random.default_rng(0).normal(0, 0.3, (PIXELS, CLASSES)).astype(np.float32)
    variables = {"params": {"head": {"kernel": kernel, "bias": np.zeros(CLASSES, np.float32)}}}
    task = setup.prepare(recipe)
    monkeypatch.setattr(models, "create", lambda *_: Flat())
    if task.teacher is not None:
        task = dataclasses.replace(task, teacher=Teacher(policy, Ensemble((Member(Flat()),)), (variables,), "linear"))
    expected, losses = by_hand(task, np.asarray(kernel, np.float64))
    (run,) = loop.train([(task, tmp_path)], checkpoint_seconds=60)
    assert isinstance(run, Run)
    np.testing.assert_allclose([row["loss"] for row in run.rows], losses, rtol=TOLERANCE)
    start = task.initial_state().params["head"]
    for name, value in expected.items():
        way = np.abs(value - np.asarray(start[name])).max()
        assert way > STEPS * RATE / 8, "far enough for a difference to show"
        errors = np.abs(run.variables["params"]["head"][name] - value) / way
        assert errors.mean() < TOLERANCE
        assert errors.max() < 20 * TOLERANCE, "a moment between two numbers of bfloat16 may be rounded to the other"
