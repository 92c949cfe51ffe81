"""A task is a recipe with everything it needs; `setup` puts it together."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np

from distill_lib import datasets, models, teachers, views
from distill_lib.errors import DistillError
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline.splits import Split
from distill_lib.models.ensemble import Ensemble
from distill_lib.recipes import Recipe
from distill_lib.teachers.soft_label_store import Store
from distill_lib.teachers.soft_labels import StoredTeacher
from distill_lib.train import fixed_targets, state, step

SPLITS = ("train", "validation", "test")
RUN = "run:"  # before STUDY/RUN_ID in a recipe's `start`
REMEMBERED = 32  # outputs of frozen teachers, which several runs of a process ask for


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a run needs.

    Attributes:
        recipe: what shall run.
        dataset: whose classes the student tells apart.
        train: training images.
        eval_sets: what students are judged by, by split.
        fingerprint: of the pictures when they were opened, where they can change; see `datasets.fingerprint`.
        data: digest of what the data sets held then; see `datasets.digest`.
        teacher: None for the label baselines.
        start: the student's first variables, where a checkpoint gives them.
        start_sha256: of that checkpoint.
        store: the teacher's soft labels, where it is not asked again.
    """

    recipe: Recipe
    dataset: datasets.Dataset
    train: Split
    eval_sets: dict[str, EvalSet]
    fingerprint: str
    data: str
    teacher: teachers.Teacher | None = None
    start: models.Variables | None = None
    start_sha256: str = ""
    store: Store | None = None

    @property
    def mock(self) -> bool:
        """Whether the data are made up."""
        return self.recipe.variant == "smoke"

    @property
    def num_classes(self) -> int:
        """Length of the logits."""
        return self.dataset.num_classes

    @property
    def run_id(self) -> str:
        """Name of the run: from recipe, teacher, the state of a folder of pictures, and how images were loaded."""
        teacher = self.teacher.sha256 if self.teacher else ""
        loading = "streamed" if self.train.streamed else ""
        return self.recipe.run_id(teacher + self.fingerprint + self.start_sha256 + loading)

    @property
    def total_steps(self) -> int:
        """Length of the schedule."""
        return self.recipe.steps(len(self.train))

    @property
    def student(self) -> nn.Module:
        """The module that is trained."""
        return models.create(self.recipe.student, self.num_classes, self.recipe.dtype)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a rendered image."""
        return (self.recipe.resolution, self.recipe.resolution, self.dataset.channels)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher answers in every step, now or beforehand."""
        return self.teacher is not None and views.policy(self.recipe.policy).relation != "fixed"

    @property
    def asked_teacher(self) -> Ensemble | StoredTeacher | None:
        """Who answers in the steps: the teacher's networks, or its soft labels; None for labels and fixed teachers."""
        if self.store is not None:
            return StoredTeacher(self.num_classes)
        return self.teacher.ensemble if self.teacher and self.asks_teacher else None

    @property
    def asked_variables(self) -> tuple[models.Variables, ...]:
        """Of the teacher's networks, if it is asked in the steps."""
        return self.teacher.variables if self.teacher and self.asks_teacher else ()

    @property
    def settings(self) -> step.Settings:
        """The numbers that the student's program is given."""
        return step.Settings.of(self.recipe, self.total_steps)

    def initial_state(self) -> state.State:
        """The student before its first step."""
        recipe = self.recipe
        return state.initial_state(
            self.student, recipe.seed, self.image_shape, optimizer=recipe.optimizer, start=self.start
        )

    @property
    def shared_batches(self) -> Hashable:
        """What decides the batches of a run; runs that share it can be taught together."""
        recipe, over_crops = self.recipe, views.policy(self.recipe.policy).teacher == "inception_mean"
        facts = self.batch_facts(tempered=over_crops)
        facts |= {"classes": recipe.dataset, "crops": recipe.ensemble_crops if over_crops else None}
        facts |= {"stored": self.store is not None, "labels": recipe.label_share > 0}
        return json.dumps(facts, sort_keys=True), self.total_steps, recipe.evaluations

    def soft_label_facts(self, kept: int) -> dict[str, Any]:
        """What stored soft labels depend on, if so many logits are kept of each; JSON-able."""
        return self.batch_facts(tempered=kept < self.num_classes)

    def batch_facts(self, *, tempered: bool) -> dict[str, Any]:
        """What the views of a run depend on, and what its teacher says of them; JSON-able.

        Args:
            tempered: whether that depends on the temperature, as a mean of several teachers' probabilities always does.
        """
        recipe, members = self.recipe, self.teacher.ensemble.members if self.teacher else ()
        mixes, several = views.policy(recipe.policy).mix, len(members) > 1
        tempered |= several and recipe.ensemble == "probabilities"
        return {
            "teacher": self.teacher.sha256 if self.teacher else None,
            "teacher_sizes": [member.resolution for member in members],
            "ensemble": recipe.ensemble if several else None,
            "dtype": recipe.dtype,
            "dataset": recipe.transfer_set or recipe.dataset,
            "data": self.data,
            "mock": self.mock,
            "examples": len(self.train),
            "streamed": self.train.streamed,
            "seed": recipe.order_seed,
            "policy": recipe.policy,
            "batch_size": recipe.batch_size,
            "resolution": recipe.resolution,
            "crop_area": recipe.crop_area,
            "whole": recipe.whole,
            "mixup": recipe.mixup if mixes else None,
            "mixup_beta": recipe.mixup_beta if mixes else None,
            "mixup_folded": recipe.mixup_folded if mixes else None,
            "temperature": recipe.temperature if tempered else None,
        }

    def fixed_targets(self) -> np.ndarray | None:
        """A fixed teacher's outputs of all training images, (n, classes); None where it is asked in the steps."""
        recipe, teacher = self.recipe, self.teacher
        if teacher is None or self.asks_teacher:
            return None
        decided = (recipe.policy, recipe.resolution, recipe.crop_area, recipe.ensemble_crops, recipe.temperature)
        return self._once("train", decided, lambda: fixed_targets.fixed_targets(teacher, self.train, recipe))

    def logits(self, variables: models.Variables, split: str) -> np.ndarray:
        """What a student says of the evaluation views of a split, (n, classes)."""
        return self.eval_sets[split].logits(self.student, variables, self.recipe.resolution)

    def features(self, variables: models.Variables, split: str) -> np.ndarray:
        """What the student's last layer is given for the first evaluation views of a split, (n, features)."""
        return self.eval_sets[split].features(self.student, variables, self.recipe.resolution)

    def teacher_logits(self, split: str) -> np.ndarray:
        """What the teacher says of the evaluation views of a split, (n, classes)."""
        return self._teacher_output(split, EvalSet.logits)

    def teacher_features(self, split: str) -> np.ndarray:
        """The teacher's features of the same views, those of several teachers side by side, (n, features)."""
        return self._teacher_output(split, EvalSet.features)

    def _teacher_output(self, split: str, output: Callable[..., np.ndarray]) -> np.ndarray:
        recipe, teacher, eval_set = self.recipe, self.teacher, self.eval_sets[split]
        assert teacher is not None
        decided = (output.__name__, recipe.resolution, recipe.eval_side)
        ask = lambda: output(eval_set, teacher.ensemble, teacher.variables, recipe.resolution)  # noqa: E731
        return self._once(split, decided, ask)

    def _once(self, split: str, decided: tuple[Hashable, ...], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Outputs of a frozen teacher, which are the same in every run of a process; the latest are remembered."""
        assert self.teacher is not None
        recipe = self.recipe
        images = (recipe.transfer_set or recipe.dataset) if split == "train" else recipe.dataset
        data = (images, self.data, self.mock, split, len(self.eval_sets[split].split), self.train.streamed)
        key = (self.teacher.sha256, self.teacher.ensemble, data, decided)
        if key not in _TEACHER_OUTPUTS:
            outputs = compute()
            if not np.isfinite(outputs).all():
                raise DistillError(f"what teacher {self.teacher.name} says of {split} is not finite: mend the teacher.")
            _TEACHER_OUTPUTS[key] = outputs
        _TEACHER_OUTPUTS.move_to_end(key)
        while len(_TEACHER_OUTPUTS) > REMEMBERED:
            _TEACHER_OUTPUTS.popitem(last=False)
        return _TEACHER_OUTPUTS[key]


_TEACHER_OUTPUTS: collections.OrderedDict[Hashable, np.ndarray] = collections.OrderedDict()
