"""A training step: a lesson is rendered and answered once, and any number of students are moved by it.

The teacher's forward pass is most of a step, so it is not part of the student's program: students that differ in
learning rate, weight decay, temperature, initialisation or architecture share it, and each is moved by the very
program that would move it alone. What a student's program depends on is its architecture and its objective. The
numbers of a recipe are arguments, so that grids and seeds compile it once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distill_lib import allocator, losses, models, optim, views
from distill_lib.models.ensemble import Ensemble
from distill_lib.teachers.soft_labels import Answers, Stored
from distill_lib.train.sources import Source
from distill_lib.train.state import State

allocator.keep_freed_memory()  # here, so that no way of starting a step is slower than another

Asked = tuple[models.Variables, ...] | Answers
"""What a teacher's logits are computed from in a step: its variables, or its stored answers of that step."""


class Lesson(NamedTuple):
    """What students are shown in a step, and what they should answer.

    Attributes:
        shown: (batch, size, size, colours) float32 in [-1, 1].
        wanted: (batch, classes) float32, a teacher's logits, or shares of labels.
        labels: (batch, classes) float32, shares of labels beside a teacher's logits; None where no loss asks for them.
    """

    shown: jax.Array
    wanted: jax.Array
    labels: jax.Array | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that the program of a lesson depends on; runs that share it share the compiled program.

    Attributes:
        policy: a key of `views.POLICIES` or `views.BASELINES`.
        teacher: the teacher, if it is asked in every step, or what it was asked before; None for labels and fixed ones.
        num_classes: length of the logits.
        batch_size: images a step.
        resolution: height and width of the rendered views, in pixels.
        mixup: "batch" or "example".
        crop_area: smallest and largest area of an inception crop.
        whole: share of inception crops that are replaced by the whole image.
        mixup_beta: p of mixup's lambda ~ Beta(p, p).
        mixup_folded: whether the larger of lambda and 1 - lambda is taken.
        with_labels: whether lessons hold shares of labels beside a teacher's logits.
    """

    policy: str
    teacher: Ensemble | Stored | None
    num_classes: int
    batch_size: int
    resolution: int
    mixup: str
    crop_area: views.Range
    whole: float
    mixup_beta: float = 1.0
    mixup_folded: bool = False
    with_labels: bool = False


def view_key(seed: int) -> jax.Array:
    """The key that all views of a run are drawn from; never that of the initialisation."""
    return jax.random.fold_in(jax.random.key(seed), 1)


@functools.lru_cache(maxsize=64)
def teach(plan: Plan) -> Callable[..., Lesson]:
    """The first half of a step, jitted: draw the views, render them, ask the teacher.

    Args:
        plan: what is shown, and who answers.

    Returns:
        A function of (view key, step, `Source`, teacher's variables or stored answers, temperature) to the lesson.
    """
    policy = views.policy(plan.policy)

    def lesson(key: jax.Array, step: jax.Array, source: Source, teacher: Any, temperature: jax.Array) -> Lesson:
        source = source.batch()
        teacher_view, student_view = views.pair(
            jax.random.fold_in(key, step),
            policy,
            plan.batch_size,
            mixup=plan.mixup,
            beta=plan.mixup_beta,
            folded=plan.mixup_folded,
            area=plan.crop_area,
            whole=plan.whole,
            image_aspect=source.aspect(),
        )
        shown = source.show(student_view, plan.resolution, teacher=False)

        def show(size: int | None) -> jax.Array:
            if teacher_view is student_view and size in (None, plan.resolution):
                return shown  # the very same pixels
            return source.show(teacher_view, size or plan.resolution, teacher=True)

        if policy.relation == "fixed":
            return Lesson(shown, jnp.asarray(source.targets))
        shares = views.mix(jax.nn.one_hot(source.targets, plan.num_classes), student_view)
        if plan.teacher is None:
            return Lesson(shown, shares)
        logits = plan.teacher.logits(teacher, show, temperature)
        return Lesson(shown, logits, shares if plan.with_labels else None)

    return jax.jit(lesson)


class Settings(NamedTuple):
    """The numbers of a recipe that do not change the student's program, so that grids and seeds compile it once."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    temperature: jax.Array
    total_steps: jax.Array
    warmup_steps: jax.Array
    label_share: jax.Array | float = 0.0


@dataclass(frozen=True)
class Objective:
    """What a student's program depends on beside its architecture.

    Attributes:
        labels: whether lessons hold shares of labels (cross-entropy) rather than a teacher's logits.
        distance: a name in `losses.DISTANCES`.
        scaled: whether the loss is multiplied by T^2.
        smoothing: of the distance "hard", as in `losses.hard`.
        optimizer, schedule, decay: as in `optim.create`.
    """

    labels: bool = False
    distance: str = "kl"
    scaled: bool = True
    smoothing: float = 0.0
    optimizer: str = "adam"
    schedule: str = "cosine"
    decay: str = "schedule"

    def loss(self, logits: jax.Array, lesson: Lesson, settings: Settings) -> jax.Array:
        """How far logits (batch, classes) are from what the lesson wants, (batch,) float32."""
        if self.labels:
            return losses.cross_entropy(logits, lesson.wanted)
        own: dict[str, dict[str, Any]] = {
            "kl": {"temperature": settings.temperature, "scaled": self.scaled},
            "hard": {"smoothing": self.smoothing},
        }
        found = losses.DISTANCES[self.distance](logits, lesson.wanted, **own.get(self.distance, {}))
        if lesson.labels is None:
            return found
        share = settings.label_share
        return (1 - share) * found + share * losses.cross_entropy(logits, lesson.labels)

    def transform(self, settings: Settings, mesh: Mesh | None = None) -> optax.GradientTransformation:
        """The optimiser with these settings, its state laid out as `spread` does it if a mesh is given."""
        return optim.create(
            self.optimizer,
            settings.learning_rate,
            settings.weight_decay,
            total_steps=settings.total_steps,
            warmup_steps=settings.warmup_steps,
            schedule=self.schedule,
            decay=self.decay,
            mesh=mesh,
        )


@functools.lru_cache(maxsize=64)
def learn(
    student: nn.Module, objective: Objective = Objective(), remat: bool = False, mesh: Mesh | None = None
) -> Callable[[State, Settings, Lesson], State]:
    """The second half of a step, jitted; the state it is given is donated.

    Args:
        student: the module that is trained.
        objective: what it minimises, and how.
        remat: as in `models.train_logits`.
        mesh: devices along one axis "data" that share the optimiser's work where that can be shared; the states are
            then those of `spread`. None has each device do all of it.

    Returns:
        A function of (state, settings, lesson) to the next state.
    """

    def moved(state: State, settings: Settings, lesson: Lesson) -> State:
        def mean_loss(params: dict) -> tuple[jax.Array, dict]:
            variables = {"params": params} | state.statistics
            logits, statistics = models.train_logits(student, variables, lesson.shown, remat=remat)
            return objective.loss(logits, lesson, settings).mean(), statistics

        (loss, statistics), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = objective.transform(settings, mesh).update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(state.step + 1, params, statistics, opt_state, state.loss_sum + loss)

    return jax.jit(moved, donate_argnums=0)
