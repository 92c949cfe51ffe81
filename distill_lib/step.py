"""One training step in two halves: a lesson is rendered and answered once, and any number of students learn from it.

The teacher's forward pass is most of a step, so it is not part of the student's program: students that differ in
learning rate, weight decay, temperature, initialisation or architecture share it, and each is moved by the very program
that would move it alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import losses, models, optim, views
from distill_lib.models.ensemble import Ensemble


class Lesson(NamedTuple):
    """What students are shown in a step, and what they should answer.

    Attributes:
        shown: (batch, size, size, colours) float32 in [-1, 1].
        wanted: (batch, classes) float32, a teacher's logits, or shares of labels.
    """

    shown: jax.Array
    wanted: jax.Array


class Material(NamedTuple):
    """What lessons are made from, whole on the device.

    Attributes:
        images: (n, height, width, colours) uint8.
        targets: labels (n,), or a fixed teacher's outputs (n, classes).
        extents: (n, 2) true height and width of each image in its canvas, in pixels; None where they fill it.
    """

    images: jax.Array | np.ndarray
    targets: jax.Array | np.ndarray
    extents: jax.Array | np.ndarray | None = None


class Crops(NamedTuple):
    """What a lesson is made from where the host crops.

    Attributes:
        student: (batch, size, size, colours) uint8.
        teacher: by size in pixels, where it is another or the teacher's crop is independent.
        targets: labels (batch,), or a fixed teacher's outputs (batch, classes).
    """

    student: jax.Array | np.ndarray
    teacher: Mapping[int, jax.Array | np.ndarray]
    targets: jax.Array | np.ndarray


class State(NamedTuple):
    """What a step changes.

    Attributes:
        step: steps done.
        params: what the optimiser moves.
        statistics: the student's other variables, such as running means of BatchNorm; often empty.
        opt_state: of the optimiser.
        loss_sum: sum of the losses since the last report.
    """

    step: jax.Array
    params: dict
    statistics: dict
    opt_state: Any
    loss_sum: jax.Array

    @property
    def variables(self) -> models.Variables:
        """The student as `models.logits` wants it."""
        return {"params": self.params} | self.statistics


class Settings(NamedTuple):
    """The numbers of a recipe that do not change the student's program, so that grids and seeds compile it once."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    temperature: jax.Array
    total_steps: jax.Array
    warmup_steps: jax.Array


@dataclass(frozen=True)
class Plan:
    """Everything that the program of a lesson depends on; runs that share it share the compiled program.

    Attributes:
        policy: a key of `views.POLICIES` or `views.BASELINES`.
        teacher: the teacher, if it is asked in every step.
        num_classes: length of the logits.
        batch_size: images a step.
        resolution: height and width of the rendered views, in pixels.
        mixup: "batch" or "example".
        crop_area: smallest and largest area of an inception crop.
        whole: share of inception crops that are replaced by the whole image.
    """

    policy: str
    teacher: Ensemble | None
    num_classes: int
    batch_size: int
    resolution: int
    mixup: str
    crop_area: views.Range
    whole: float


def initial_state(student: nn.Module, seed: int, image_shape: tuple[int, int, int]) -> State:
    """The state before the first step.

    Args:
        student: the module to train.
        seed: of the initialisation.
        image_shape: height, width and colours of a rendered image.
    """
    variables = models.init(student, jax.random.fold_in(jax.random.key(seed), 0), image_shape)
    params = variables.pop("params")
    opt_state = optim.adam(1.0, 0.0, total_steps=1, warmup_steps=0).init(params)
    return State(jnp.zeros((), jnp.int32), params, variables, opt_state, jnp.zeros(()))


def state_bytes(student: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Memory that the state of one student takes: parameters, statistics and optimiser state; nothing is computed."""
    variables = models.shapes(student, image_shape)
    opt_state = jax.eval_shape(optim.adam(1.0, 0.0, total_steps=1, warmup_steps=0).init, variables["params"])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((variables, opt_state)))


def view_key(seed: int) -> jax.Array:
    """The key that all views of a run are drawn from; never that of the initialisation."""
    return jax.random.fold_in(jax.random.key(seed), 1)


@functools.lru_cache(maxsize=64)
def teach(plan: Plan) -> Callable[..., Lesson]:
    """The first half of a step where all images are on the device, jitted.

    Args:
        plan: what is shown, and who answers.

    Returns:
        A function of (view key, step, material, indices, teacher's variables, temperature) to the lesson; `indices`
        (batch,) says which images of the material the step uses.
    """

    def lesson(
        key: jax.Array,
        step: jax.Array,
        material: Material,
        indices: jax.Array,
        teacher: tuple[models.Variables, ...],
        temperature: jax.Array,
    ) -> Lesson:
        images, targets, extents = jax.tree.map(lambda whole: whole[indices], material)
        teacher_view, student_view = _views(plan, key, step, views.aspect(images, extents))
        shown = views.render(images, student_view, plan.resolution, extents)

        def show(size: int | None) -> jax.Array:
            if teacher_view is student_view and size in (None, plan.resolution):
                return shown
            return views.render(images, teacher_view, size or plan.resolution, extents)

        return _answered(plan, shown, student_view, show, targets, teacher, temperature)

    return jax.jit(lesson)


@functools.lru_cache(maxsize=64)
def teach_crops(plan: Plan) -> Callable[..., Lesson]:
    """The first half of a step where crops come from the host, jitted: what is left is mixup and the teacher.

    Args:
        plan: what is shown, and who answers; crops are made by `stream` from the same seed.

    Returns:
        A function of (view key, step, crops, teacher's variables, temperature) to the lesson.
    """

    def lesson(
        key: jax.Array,
        step: jax.Array,
        crops: Crops,
        teacher: tuple[models.Variables, ...],
        temperature: jax.Array,
    ) -> Lesson:
        teacher_view, student_view = _views(plan, key, step, jnp.ones(()))
        shown = views.mix(views.normalize(crops.student), student_view)

        def show(size: int | None) -> jax.Array:
            if teacher_view is student_view and size in (None, plan.resolution):
                return shown
            return views.mix(views.normalize(crops.teacher[size or plan.resolution]), teacher_view)

        return _answered(plan, shown, student_view, show, jnp.asarray(crops.targets), teacher, temperature)

    return jax.jit(lesson)


def _views(plan: Plan, key: jax.Array, step: jax.Array, image_aspect: jax.Array) -> tuple[views.View, views.View]:
    return views.pair(
        jax.random.fold_in(key, step),
        views.policy(plan.policy),
        plan.batch_size,
        mixup=plan.mixup,
        area=plan.crop_area,
        whole=plan.whole,
        image_aspect=image_aspect,
    )


def _answered(
    plan: Plan,
    shown: jax.Array,
    view: views.View,
    show: Callable[[int | None], jax.Array],
    targets: jax.Array,
    teacher: tuple[models.Variables, ...],
    temperature: jax.Array,
) -> Lesson:
    relation = views.policy(plan.policy).relation
    if relation == "none":
        return Lesson(shown, views.mix(jax.nn.one_hot(targets, plan.num_classes), view))
    if relation == "fixed":
        return Lesson(shown, targets)
    assert plan.teacher is not None
    return Lesson(shown, plan.teacher.logits(teacher, show, temperature))


@functools.lru_cache(maxsize=64)
def learn(student: nn.Module, labels: bool = False, remat: bool = False) -> Callable[[State, Settings, Lesson], State]:
    """The second half of a step, jitted; the state it is given is donated.

    Args:
        student: the module that is trained.
        labels: whether lessons hold shares of labels (cross-entropy) rather than a teacher's logits (KL).
        remat: as in `models.train_logits`.

    Returns:
        A function of (state, settings, lesson) to the next state.
    """

    def moved(state: State, settings: Settings, lesson: Lesson) -> State:
        def mean_loss(params: dict) -> tuple[jax.Array, dict]:
            variables = {"params": params} | state.statistics
            logits, statistics = models.train_logits(student, variables, lesson.shown, remat=remat)
            if labels:
                return losses.cross_entropy(logits, lesson.wanted).mean(), statistics
            return losses.kl(logits, lesson.wanted, temperature=settings.temperature).mean(), statistics

        (loss, statistics), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        transform = optim.adam(
            settings.learning_rate,
            settings.weight_decay,
            total_steps=settings.total_steps,
            warmup_steps=settings.warmup_steps,
        )
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(state.step + 1, params, statistics, opt_state, state.loss_sum + loss)

    return jax.jit(moved, donate_argnums=0)
