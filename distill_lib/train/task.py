"""A task is a recipe with everything it needs; `setup` puts it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from distill_lib import datasets, models, teachers, views
from distill_lib.evaluation import eval_sets
from distill_lib.input_pipeline import stream
from distill_lib.recipes import Recipe
from distill_lib.teachers import soft_label_store, soft_labels
from distill_lib.train import fixed_targets, state, step

SPLITS = ("train", "validation", "test")
RUN = "run:"  # before STUDY/RUN_ID in a recipe's `start`


@dataclass(frozen=True)
class Task:
    """Everything a run needs.

    Attributes:
        recipe: what shall run.
        train: training images in memory; None where they are decoded on the way.
        exams: what students are judged by, by split.
        num_classes: length of the logits.
        colours: colour channels of the images.
        examples: number of training images.
        teacher: None for the label baselines.
        source: training images that are decoded on the way; None where they are in memory.
        workers: threads that decode; None takes one for each core.
        mock: whether the data are made up.
        start: the student's first variables, where a checkpoint gives them.
        start_sha256: of that checkpoint.
        fingerprint: of the pictures when they were opened, where they can change; see `datasets.fingerprint`.
        on_bad_image: as in `stream.batches`.
        store: the teacher's answers, where it is not asked again.
    """

    recipe: Recipe
    train: datasets.Arrays | None
    exams: dict[str, eval_sets.Exam]
    num_classes: int
    colours: int
    examples: int
    teacher: teachers.Teacher | None
    source: datasets.Source | None
    workers: int | None
    mock: bool
    start: models.Variables | None = None
    start_sha256: str = ""
    fingerprint: str = ""
    on_bad_image: str = stream.ON_BAD_IMAGE[0]
    store: soft_label_store.Store | None = None

    @property
    def run_id(self) -> str:
        """Name of the run: from recipe, teacher, the state of a folder of pictures, and how images were loaded."""
        teacher = self.teacher.sha256 if self.teacher else ""
        loading = "streamed" if self.source is not None else ""
        return self.recipe.run_id(teacher + self.fingerprint + self.start_sha256 + loading)

    @property
    def total_steps(self) -> int:
        """Length of the schedule."""
        return self.recipe.steps(self.examples)

    @property
    def student(self) -> nn.Module:
        """The module that is trained."""
        return models.create(self.recipe.student, self.num_classes, self.recipe.dtype)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and colours of a rendered image."""
        return (self.recipe.resolution, self.recipe.resolution, self.colours)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher answers in every step, now or beforehand."""
        return self.teacher is not None and views.policy(self.recipe.policy).relation != "fixed"

    @property
    def plan(self) -> step.Plan:
        """What the program of a lesson depends on."""
        recipe = self.recipe
        asked = self.teacher.ensemble if self.teacher and self.asks_teacher else None
        return step.Plan(
            policy=recipe.policy,
            teacher=soft_labels.Stored(self.num_classes) if self.store else asked,
            num_classes=self.num_classes,
            batch_size=recipe.batch_size,
            resolution=recipe.resolution,
            mixup=recipe.mixup,
            crop_area=recipe.crop_area,
            whole=recipe.whole,
            mixup_beta=recipe.mixup_beta,
            mixup_folded=recipe.mixup_folded,
            with_labels=recipe.label_share > 0,
        )

    @property
    def objective(self) -> step.Objective:
        """What the student's program depends on beside its architecture."""
        recipe = self.recipe
        return step.Objective(
            labels=not recipe.has_teacher,
            distance=recipe.distance,
            scaled=recipe.temperature_squared,
            smoothing=recipe.label_smoothing,
            optimizer=recipe.optimizer,
            schedule=recipe.schedule,
            decay=recipe.decay,
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
            label_share=jnp.float32(recipe.label_share),
        )

    def initial_state(self) -> state.State:
        """The student before its first step."""
        recipe = self.recipe
        return state.initial_state(
            self.student, recipe.seed, self.image_shape, optimizer=recipe.optimizer, start=self.start
        )

    @property
    def lesson_id(self) -> tuple:
        """What decides the lessons of a run; runs that share it can be taught together."""
        recipe, policy = self.recipe, views.policy(self.recipe.policy)
        tempered = policy.teacher == "inception_mean" or self._mean_of_probabilities
        return (
            self.plan,
            self.identity("train"),
            recipe.order_seed,
            self.total_steps,
            recipe.evaluations,
            recipe.ensemble_crops if policy.teacher == "inception_mean" else None,
            recipe.temperature if tempered else None,
        )

    @property
    def _mean_of_probabilities(self) -> bool:
        several = self.teacher is not None and len(self.teacher.ensemble.members) > 1
        return several and self.recipe.ensemble == "probabilities"

    def answered(self, kept: int) -> dict[str, Any]:
        """What a teacher's answers in the steps depend on, if so many logits are kept of each; JSON-able."""
        recipe = self.recipe
        assert self.teacher is not None
        members, mixes = self.teacher.ensemble.members, views.policy(recipe.policy).mix
        return {
            "teacher": self.teacher.sha256,
            "teacher_sizes": [member.resolution for member in members],
            "ensemble": recipe.ensemble if len(members) > 1 else None,
            "dtype": recipe.dtype,
            "dataset": recipe.transfer_set or recipe.dataset,
            "fingerprint": self.fingerprint,
            "mock": self.mock,
            "examples": self.examples,
            "streamed": self.source is not None,
            "seed": recipe.order_seed,
            "policy": recipe.policy,
            "batch_size": recipe.batch_size,
            "resolution": recipe.resolution,
            "crop_area": recipe.crop_area,
            "whole": recipe.whole,
            "mixup": recipe.mixup if mixes else None,
            "mixup_beta": recipe.mixup_beta if mixes else None,
            "mixup_folded": recipe.mixup_folded if mixes else None,
            "temperature": recipe.temperature if kept < self.num_classes or self._mean_of_probabilities else None,
        }

    def identity(self, split: str) -> tuple:
        """What a frozen teacher's outputs on a split depend on."""
        teacher = (self.teacher.sha256, self.teacher.ensemble) if self.teacher else ()
        count = self.examples if split == "train" else len(self.exams[split].labels)
        images = (self.recipe.transfer_set or self.recipe.dataset) if split == "train" else self.recipe.dataset
        return (*teacher, images, self.fingerprint, self.mock, split, count, self.source is not None)

    def targets(self) -> np.ndarray:
        """What lessons are made from beside a live teacher: labels (n,), or a fixed teacher's outputs (n, classes).

        Where images are decoded on the way, labels come with them, and this is for fixed teachers alone.
        """
        recipe, teacher, source = self.recipe, self.teacher, self.source
        policy = views.policy(recipe.policy)
        if source is not None and teacher is not None:
            once: dict[str, Any] = {"resolution": recipe.resolution, "temperature": recipe.temperature}
            key = (self.identity("train"), policy, *once.values())
            once |= {"channels": self.colours, "workers": self.workers}
            return _once(key, lambda: fixed_targets.logits(teacher, source, policy, **once))
        train = self.train
        assert train is not None
        if policy.relation != "fixed" or teacher is None:
            return train.labels
        options: dict[str, Any] = {
            "resolution": recipe.resolution,
            "area": recipe.crop_area,
            "crops": recipe.ensemble_crops,
            "temperature": recipe.temperature,
        }
        key = (self.identity("train"), policy, *options.values())
        options["extents"] = train.extents
        return _once(key, lambda: fixed_targets.fixed_logits(teacher, train.images, policy, **options))

    def labels(self, split: str) -> np.ndarray:
        """Labels of the images that students are judged by."""
        return self.exams[split].labels

    def predict(self, variables: models.Variables, split: str) -> np.ndarray:
        """What a student says of the evaluation views of a split, (n, classes)."""
        return self.exams[split].predict(self.student, variables, self.recipe.resolution)

    def teacher_logits(self, split: str) -> np.ndarray:
        """What the teacher says of the evaluation views of a split, (n, classes)."""
        recipe, teacher, exam = self.recipe, self.teacher, self.exams[split]
        assert teacher is not None
        key = (self.identity(split), recipe.resolution, recipe.eval_side, len(exam.labels))
        return _once(key, lambda: exam.predict(teacher.ensemble, teacher.variables, recipe.resolution))

    def features(self, variables: models.Variables, split: str) -> np.ndarray:
        """What the student's last layer is given for the first evaluation views of a split, (n, features)."""
        return self.exams[split].features(self.student, variables, self.recipe.resolution, eval_sets.FEATURE_IMAGES)

    def teacher_features(self, split: str) -> np.ndarray:
        """The teacher's features of the same views, those of several teachers side by side, (n, features)."""
        recipe, teacher, exam = self.recipe, self.teacher, self.exams[split]
        assert teacher is not None
        key = (self.identity(split), recipe.resolution, recipe.eval_side, "features")
        return _once(
            key, lambda: exam.features(teacher.ensemble, teacher.variables, recipe.resolution, eval_sets.FEATURE_IMAGES)
        )


_TEACHER_OUTPUTS: dict[tuple, np.ndarray] = {}


def _once(key: tuple, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Outputs of a frozen teacher, which are the same in every run of a process."""
    if key not in _TEACHER_OUTPUTS:
        _TEACHER_OUTPUTS[key] = compute()
    return _TEACHER_OUTPUTS[key]
