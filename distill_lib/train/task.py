"""A task is a recipe with everything it needs, and its batches, one a step; `setup` puts it together."""

import contextlib
import json
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import datasets, models, sharding, teachers, views
from distill_lib.crops import MILD_CROP_SIDE
from distill_lib.errors import DistillError, logger
from distill_lib.evaluation import metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline.splits import Split
from distill_lib.models import compression
from distill_lib.models.ensemble import Ensemble
from distill_lib.recipes import Recipe
from distill_lib.teachers.soft_labels import Store
from distill_lib.train import step

SPLITS = ("train", "validation", "test")
RUN = "run:"  # before STUDY/RUN_ID in a recipe's `start`
AT_ONCE = 512  # images that a fixed teacher is asked for
SIDES = {"whole": 1.0, "central": MILD_CROP_SIDE}
"""Views of a fixed teacher that are a single crop: its sides, as fractions of the image's."""
REMEMBERED = 32  # outputs of frozen teachers, which several runs of a process ask for
_MIXED = ("mixup", "mixup_beta", "mixup_folded")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything a run needs."""

    recipe: Recipe
    dataset: datasets.Dataset  # whose classes the student tells apart
    eval_sets: dict[str, EvalSet]  # what students are judged by, by split
    fingerprint: str  # of the pictures when they were opened, where they can change; see `datasets.fingerprint`
    data: str  # digest of what the data sets held then; see `datasets.digest`
    code: str = ""  # digest of files outside of the library that its result depends on
    teacher: teachers.Teacher | None = None  # None for the label baselines
    start: models.Variables | None = None  # the student's first variables, where a checkpoint gives them
    start_sha256: str = ""  # of that checkpoint
    store: Store | None = None  # the teacher's soft labels, where it is not asked again

    @property
    def train(self) -> Split:
        """The images that students learn from."""
        return self.eval_sets["train"].split

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
    def image_shape(self) -> models.ImageShape:
        """Height, width and channels of a rendered image."""
        return (self.recipe.resolution, self.recipe.resolution, self.dataset.channels)

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher answers in every step, now or beforehand."""
        return self.teacher is not None and views.policy(self.recipe.policy).relation != "fixed"

    @property
    def asked(self) -> tuple[Ensemble | None, tuple[models.Variables, ...]]:
        """The networks that are asked in the steps, with their variables; None where there are none."""
        if self.teacher is None or not self.asks_teacher or self.store is not None:
            return None, ()
        return self.teacher.ensemble, self.teacher.variables

    @property
    def settings(self) -> step.Settings:
        """The numbers that the student's program is given."""
        return step.Settings.of(self.recipe, self.total_steps)

    def initial_state(self) -> step.State:
        """The student before its first step."""
        shape, optimizer = self.image_shape, self.recipe.optimizer
        return step.initial_state(self.student, self.recipe.seed, shape, optimizer=optimizer, start=self.start)

    @property
    def shared_batches(self) -> Hashable:
        """What decides the batches of a run; runs that share it can be taught together. One that goes back is alone."""
        recipe, over_crops = self.recipe, views.policy(self.recipe.policy).teacher == "inception_mean"
        facts = self.batch_facts(tempered=over_crops)
        facts |= {"classes": recipe.dataset, "crops": recipe.ensemble_crops if over_crops else None}
        facts |= {"stored": self.store is not None, "labels": recipe.label_share > 0}
        facts |= {"alone": self.run_id if recipe.on_divergence == "rewind" else None}
        return json.dumps(facts, sort_keys=True), self.total_steps, recipe.evaluations

    def batch_facts(self, *, tempered: bool) -> dict[str, Any]:
        """What views and answers of a run depend on, the temperature too where they are `tempered`; JSON-able."""
        recipe, members = self.recipe, self.teacher.ensemble.members if self.teacher else ()
        mixes, several = views.policy(recipe.policy).mix, len(members) > 1
        tempered |= several and recipe.ensemble == "probabilities"
        own = {name: getattr(recipe, name) for name in (*step.VIEW_FIELDS, "dtype")}
        mixed = {name: getattr(recipe, name) if mixes else None for name in _MIXED}
        return (
            own
            | mixed
            | {
                "teacher": self.teacher.sha256 if self.teacher else None,
                "teacher_sizes": [member.resolution for member in members],
                "ensemble": recipe.ensemble if several else None,
                "dataset": recipe.transfer_set or recipe.dataset,
                "data": self.data,
                "mock": self.mock,
                "examples": len(self.train),
                "streamed": self.train.streamed,
                "seed": recipe.order_seed,
                "temperature": recipe.temperature if tempered else None,
            }
        )

    def fixed_targets(self) -> np.ndarray | None:
        """A fixed teacher's outputs of all training images, (n, classes); None where it is asked in the steps."""
        recipe, teacher = self.recipe, self.teacher
        if teacher is None or self.asks_teacher:
            return None
        decided = (recipe.policy, recipe.resolution, recipe.crop_area, recipe.ensemble_crops, recipe.temperature)
        return self._once("train", decided, lambda: fixed_targets(teacher, self.train, recipe))

    def batches(self, start: int, mesh: Mesh) -> Generator[step.Batch, None, None]:
        """Its batches from a step on, endless, to be closed; DistillError if stored soft labels do not fit."""
        recipe, store, (teacher, variables) = self.recipe, self.store, self.asked
        teach = step.teach(recipe, teacher, self.num_classes)
        everywhere, split = sharding.everywhere(mesh), sharding.split(mesh)
        key = jax.jit(lambda: views.view_key(recipe.order_seed), out_shardings=everywhere)()
        variables = sharding.put(variables, everywhere)
        sizes = teacher.sizes(recipe.resolution) if teacher else []
        temperature = np.float32(recipe.temperature)
        with contextlib.closing(self.train.batches(recipe, start, mesh, self.fixed_targets(), sizes)) as given:
            for number, pixels in given:
                asked: Any = variables if store is None else sharding.put(store.read(number), split)
                batch = teach(key, np.int32(number), pixels, asked, temperature)
                if store is not None:
                    store.check(number, batch.images)
                yield batch

    def output(self, split: str, variables: models.Variables | None = None, kind: str = "logits") -> np.ndarray:
        """Logits (n, classes), or features of the first images, of a student or of the teacher, on a split."""
        ask, recipe, teacher = getattr(self.eval_sets[split], kind), self.recipe, self.teacher
        if variables is not None:
            network: Any = self.student
            if recipe.compression != "none":
                network, variables = compression.frozen(network, variables, recipe.compression)
            output: np.ndarray = ask(network, variables, recipe.resolution)
            return output
        assert teacher is not None
        decided = (kind, recipe.resolution, recipe.eval_side)
        return self._once(split, decided, lambda: ask(teacher.ensemble, teacher.variables, recipe.resolution))

    def result(self, variables: models.Variables) -> dict[str, float]:
        """`evaluate` on all splits, and linear CKA of features with the teacher's on two of them, where defined."""
        values = {name: value for split in SPLITS for name, value in self.evaluate(variables, split).items()}
        for split in ("validation", "test") if self.teacher and self.teacher.has_features else ():
            features = [self.output(split, whose, "features") for whose in (variables, None)]
            cka = metrics.linear_cka(*self.eval_sets[split].sound(*features))
            values |= {f"{split}_cka": cka} if np.isfinite(cka) else {}
        return values

    def evaluate(self, variables: models.Variables, split: str) -> dict[str, float]:
        """A student's metrics on a split's sound images, with its fidelity to a teacher; or a NotFiniteError."""
        eval_set, expected = self.eval_sets[split], self.output(split) if self.teacher else None
        labels = None if split == "train" and self.recipe.transfer_set else eval_set.labels
        values = metrics.metrics(*eval_set.sound(self.output(split, variables), labels, expected))
        return {f"{split}_{name}": value for name, value in values.items()}

    def _once(self, split: str, decided: tuple[Hashable, ...], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Outputs of a frozen teacher, which are the same in every run of a process; the latest are remembered."""
        assert self.teacher is not None
        recipe = self.recipe
        images = (recipe.transfer_set or recipe.dataset) if split == "train" else recipe.dataset
        data = (images, self.data, self.mock, split, len(self.eval_sets[split].split), self.train.streamed)
        key = (self.teacher.sha256, self.teacher.ensemble, data, decided)
        if (outputs := _TEACHER_OUTPUTS.pop(key, None)) is None:
            outputs = compute()
            if not np.isfinite(outputs).all():
                raise DistillError(f"what teacher {self.teacher.name} says of {split} is not finite: mend the teacher.")
        _TEACHER_OUTPUTS[key] = outputs  # the latest one is the last
        if len(_TEACHER_OUTPUTS) > REMEMBERED:
            del _TEACHER_OUTPUTS[next(iter(_TEACHER_OUTPUTS))]
        return outputs


_TEACHER_OUTPUTS: dict[Hashable, np.ndarray] = {}


def fixed_targets(teacher: teachers.Teacher, split: Split, recipe: Recipe) -> np.ndarray:
    """A fixed teacher's logits, (n, classes) float32, computed once for each image, for the crops of a recipe's policy.

    A mean over crops, of images in memory, is returned as logits whose softmax at the recipe's temperature is the mean
    of the predictions. Of an image that cannot be decoded, what is said of a black one: no step shows it.
    """
    crop = views.policy(recipe.policy).teacher
    assert crop is not None, "a baseline has no teacher"
    mean_over_crops, temperature = crop == "inception_mean", recipe.temperature
    kind = "inception" if mean_over_crops else crop

    @jax.jit
    def answer(variables: tuple[models.Variables, ...], pixels: views.Pixels, key: jax.Array) -> jax.Array:
        count = len(jax.tree.leaves(pixels)[0])
        ratio = pixels.aspect()
        view = views.sample(key, count, crop=kind, flip=False, area=recipe.crop_area, image_aspect=ratio)
        show = lambda size: pixels.show(view, size or recipe.resolution, teacher=True)  # noqa: E731
        logits = teacher.ensemble.logits(variables, show, temperature)
        return jax.nn.softmax(logits / temperature) if mean_over_crops else logits

    variables = sharding.on_all_devices(teacher.variables)
    sizes = teacher.ensemble.sizes(recipe.resolution)
    crops, parts = recipe.ensemble_crops if mean_over_crops else 1, []
    for number, pixels in enumerate(split.parts(SIDES.get(kind, 1.0), sizes, AT_ONCE, square=False)):
        if number % 20 == 0 and number:
            logger.info("the teacher's fixed outputs: %d of %d images", number * AT_ONCE, len(split))
        first = jax.random.key(number * AT_ONCE)
        keys = (jax.random.fold_in(first, crop_number) for crop_number in range(crops))
        parts.append(sharding.fetch(sum(answer(variables, pixels, key) for key in keys)) / crops)
    means = np.concatenate(parts)[: len(split)]
    return temperature * np.log(np.maximum(means, np.finfo(np.float32).tiny)) if mean_over_crops else means
