"""A task is a recipe with everything it needs, loaded and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import datasets, evaluate, models, step, teachers, views
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe

SPLITS = ("train", "validation", "test")
DATA_FIELDS = ("dataset", "variant", "train_images")
TEACHER_FIELDS = ("teacher", "resolution", "ensemble", "dtype")


@dataclass(frozen=True)
class Task:
    """Everything a run needs."""

    recipe: Recipe
    data: dict[str, datasets.Arrays]
    num_classes: int
    teacher: teachers.Teacher | None
    total_steps: int

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.recipe.run_id(self.teacher.sha256 if self.teacher else "")

    @property
    def mock(self) -> bool:
        """Whether the data are made up."""
        return self.data["train"].mock

    @property
    def student(self) -> nn.Module:
        """The module that is trained."""
        return models.create(self.recipe.student, self.num_classes, self.recipe.dtype)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and colours of a rendered image."""
        return (self.recipe.resolution, self.recipe.resolution, self.data["train"].images.shape[-1])

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher answers in every step."""
        return self.teacher is not None and views.policy(self.recipe.policy).relation != "fixed"

    @property
    def plan(self) -> step.Plan:
        """What the program of a lesson depends on."""
        recipe = self.recipe
        return step.Plan(
            policy=recipe.policy,
            teacher=self.teacher.ensemble if self.teacher and self.asks_teacher else None,
            num_classes=self.num_classes,
            batch_size=recipe.batch_size,
            resolution=recipe.resolution,
            mixup=recipe.mixup,
            crop_area=recipe.crop_area,
            whole=recipe.whole,
        )

    @property
    def settings(self) -> step.Settings:
        """The numbers that the student's program is given."""
        recipe = self.recipe
        return step.Settings(
            learning_rate=jnp.float32(recipe.learning_rate),
            weight_decay=jnp.float32(recipe.weight_decay),
            temperature=jnp.float32(recipe.temperature),
            total_steps=jnp.int32(self.total_steps),
            warmup_steps=jnp.int32(recipe.warmup_steps),
        )

    @property
    def lesson_id(self) -> tuple:
        """What decides the lessons of a run; runs that share it can be taught together."""
        recipe, policy = self.recipe, views.policy(self.recipe.policy)
        tempered = policy.teacher == "inception_mean" or (self.plan.teacher and recipe.ensemble == "probabilities")
        return (
            self.plan,
            self.identity("train"),
            recipe.order_seed,
            self.total_steps,
            recipe.evaluations,
            recipe.ensemble_crops if policy.teacher == "inception_mean" else None,
            recipe.temperature if tempered else None,
        )

    def identity(self, split: str) -> tuple:
        """What a frozen teacher's outputs on a split depend on."""
        teacher = (self.teacher.sha256, self.teacher.ensemble) if self.teacher else ()
        return (*teacher, self.recipe.dataset, self.mock, split, len(self.data[split].labels))

    def targets(self) -> np.ndarray:
        """What lessons are made from beside a live teacher: labels (n,), or a fixed teacher's outputs (n, classes)."""
        recipe, teacher, train = self.recipe, self.teacher, self.data["train"]
        policy = views.policy(recipe.policy)
        if policy.relation != "fixed" or teacher is None:
            return train.labels
        options: dict[str, Any] = {
            "resolution": recipe.resolution,
            "area": recipe.crop_area,
            "crops": recipe.ensemble_crops,
            "temperature": recipe.temperature,
        }
        key = (self.identity("train"), policy, *options.values())
        return _once(key, lambda: teachers.fixed_logits(teacher, train.images, policy, **options))

    def teacher_logits(self, split: str, images: np.ndarray) -> np.ndarray:
        """What the teacher says of the evaluation views of a split, (n, classes)."""
        recipe, teacher = self.recipe, self.teacher
        assert teacher is not None
        predict = evaluate.predictor(teacher.ensemble, resolution=recipe.resolution, side=recipe.eval_side)
        key = (self.identity(split), recipe.resolution, recipe.eval_side, len(images))
        return _once(key, lambda: predict(teacher.variables, images))


def prepare(recipe: Recipe, like: Task | None = None) -> Task:
    """Loads and checks data and teacher; nothing is computed.

    Args:
        recipe: what shall run.
        like: a task whose data and teacher are taken where they are the same.

    Raises:
        DistillError: if the recipe asks for what there is not, or for what does not fit together.
    """
    dataset = datasets.get(recipe.dataset)
    student = models.create(recipe.student, dataset.num_classes, recipe.dtype)
    models.shapes(student, (recipe.resolution, recipe.resolution, dataset.channels))  # told before images are decoded
    data = like.data if like and _same(recipe, like.recipe, DATA_FIELDS) else _data(recipe)
    if recipe.batch_size > len(data["train"].labels):
        raise DistillError(
            f"batch_size {recipe.batch_size} is larger than the data ({len(data['train'].labels)} training images); "
            "choose a smaller batch_size."
        )
    if recipe.batch_size % jax.device_count():
        raise DistillError(
            f"batch_size {recipe.batch_size} cannot be shared by {jax.device_count()} devices; choose a multiple."
        )
    teacher = None
    if recipe.has_teacher and like and like.teacher and _same(recipe, like.recipe, DATA_FIELDS + TEACHER_FIELDS):
        teacher = like.teacher
    elif recipe.has_teacher:
        teacher = teachers.load(
            recipe.teacher,
            num_classes=dataset.num_classes,
            colours=data["train"].images.shape[-1],
            resolution=recipe.resolution,
            ensemble=recipe.ensemble,
            dtype=recipe.dtype,
        )
    return Task(recipe, data, dataset.num_classes, teacher, recipe.steps(len(data["train"].labels)))


def _data(recipe: Recipe) -> dict[str, datasets.Arrays]:
    mock = recipe.variant == "smoke"
    return {
        split: datasets.arrays(recipe.dataset, split, recipe.train_images if split == "train" else None, mock=mock)
        for split in SPLITS
    }


def _same(one: Recipe, other: Recipe, fields: tuple[str, ...]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in fields)


_TEACHER_OUTPUTS: dict[tuple, np.ndarray] = {}


def _once(key: tuple, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Outputs of a frozen teacher, which are the same in every run of a process."""
    if key not in _TEACHER_OUTPUTS:
        _TEACHER_OUTPUTS[key] = compute()
    return _TEACHER_OUTPUTS[key]
