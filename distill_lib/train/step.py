"""A training step: views are drawn, rendered and shown to the teacher once, and any number of students learn from it.

The teacher's forward pass is most of a step, so it is a program of its own: students that differ in learning rate,
weight decay, temperature, initialisation or architecture share it (Beyer et al., CVPR 2022, section 3). The numbers of
a recipe are arguments, so that grids and seeds compile it once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from distill_lib import losses, models, optim, sharding, views
from distill_lib.models import compression
from distill_lib.models.ensemble import Ensemble
from distill_lib.teachers.soft_labels import SoftLabels, restore
from distill_lib.views import Pixels

if TYPE_CHECKING:
    from distill_lib.recipes import Recipe

sharding.keep_freed_memory()  # here, so that no way of starting a step is slower than another

VIEW_FIELDS = (
    "policy", "batch_size", "resolution", "mixup", "mixup_beta", "mixup_folded", "crop_area", "whole",
)  # fmt: skip
"""What of a recipe decides its views."""
LOSS_FIELDS = (
    "distance", "temperature_squared", "label_smoothing", "optimizer", "schedule", "decay", "compression",
)  # fmt: skip
"""What of a recipe decides a student's program, beside its architecture and whether there is a teacher."""


class Batch(NamedTuple):
    """What students are shown in a step, and what they should say."""

    images: jax.Array  #: (batch, size, size, channels) float32 in [-1, 1]
    targets: jax.Array  #: (batch, classes) float32, a teacher's logits, or shares of labels
    labels: jax.Array | None = None  #: likewise, beside a teacher's logits; None where no loss asks for it
    weights: jax.Array | None = None  #: float32, of each loss in the mean; None where all count alike


class State(NamedTuple):
    """What a step changes; it lies whole on every device."""

    step: jax.Array  # how many are done
    params: dict[str, Any]  # what the optimiser moves
    statistics: dict[str, Any]  # the student's other variables, such as running means of BatchNorm; often empty
    opt_state: Any
    loss_sum: jax.Array  # since the last report
    last: jax.Array  # loss and length of the gradient before it is clipped, of the last step
    largest: jax.Array  # of both, since the last report

    @property
    def variables(self) -> models.Variables:
        """The student as `models.logits` wants it, to be judged and kept; steps need not be taken at these weights."""
        return {"params": optim.averaged(self.params, self.opt_state)} | self.statistics


class Settings(NamedTuple):
    """The numbers of a recipe that do not change the student's program."""

    learning_rate: jax.Array
    weight_decay: jax.Array
    temperature: jax.Array
    label_share: jax.Array
    total_steps: jax.Array
    warmup_steps: jax.Array

    @classmethod
    def of(cls, recipe: Recipe, total_steps: int) -> Settings:
        """Those of a recipe for a run of so many steps."""
        reals = (recipe.learning_rate, recipe.weight_decay, recipe.temperature, recipe.label_share)
        rate, decay, temperature, share = map(jnp.float32, reals)
        return cls(rate, decay, temperature, share, jnp.int32(total_steps), jnp.int32(recipe.warmup_steps))


def teach(recipe: Recipe, teacher: Ensemble | None, num_classes: int) -> Callable[..., Batch]:
    """The first half of a step, jitted: draw the views, render them, ask the teacher.

    Recipes that share `VIEW_FIELDS` share the program; the teacher is asked in every step, and None for labels, fixed
    teachers and soft labels. Gives a function of (view key, step, `Pixels`, the teacher's variables or soft labels,
    temperature) to the batch.
    """
    share = 0.5 if recipe.label_share else 0.0  # any above 0 is the same program
    return _teach(recipe.only(VIEW_FIELDS, label_share=share), teacher, num_classes)


@functools.lru_cache(maxsize=64)
def _teach(recipe: Recipe, teacher: Ensemble | None, num_classes: int) -> Callable[..., Batch]:
    policy, size = views.policy(recipe.policy), recipe.resolution

    @jax.jit
    def batch(key: jax.Array, step: jax.Array, pixels: Pixels, asked: Any, temperature: jax.Array) -> Batch:
        pixels = pixels.batch()
        teacher_view, student_view = views.pair(
            jax.random.fold_in(key, step),
            policy,
            recipe.batch_size,
            mixup=recipe.mixup,
            beta=recipe.mixup_beta,
            folded=recipe.mixup_folded,
            area=recipe.crop_area,
            whole=recipe.whole,
            image_aspect=pixels.aspect(),
        )
        images = pixels.show(student_view, size, teacher=False)

        def show(teacher_size: int | None) -> jax.Array:
            if teacher_view is student_view and teacher_size in (None, size):
                return images  # the very same pixels
            return pixels.show(teacher_view, teacher_size or size, teacher=True)

        if policy.relation == "fixed":
            return Batch(images, jnp.asarray(pixels.targets))

        def labels() -> jax.Array:
            return views.mix(jax.nn.one_hot(pixels.targets, num_classes), student_view)

        if isinstance(asked, SoftLabels):
            logits = restore(asked, num_classes)
        elif teacher is None:
            return Batch(images, labels())
        else:
            logits = teacher.logits(asked, show, temperature)
        return Batch(images, logits, labels() if recipe.label_share else None)

    return batch


def learn(
    student: nn.Module, recipe: Recipe, remat: bool = False, mesh: Mesh | None = None
) -> Callable[[State, Settings, Batch], State]:
    """The second half of a step, jitted: loss, gradient, update; the state that it is given is donated.

    Recipes that share `LOSS_FIELDS` share the program; `remat` is as in `models.train_logits`. Devices of a mesh, along
    one axis "data", share the optimiser's work where that can be. Gives a function of (state, settings, batch).
    """
    policy = "same/ic" if recipe.has_teacher else "labels"  # whichever it is, it is the same program
    return _learn(student, recipe.only(LOSS_FIELDS, policy=policy), remat, mesh)


@functools.lru_cache(maxsize=64)
def _learn(
    student: nn.Module, recipe: Recipe, remat: bool, mesh: Mesh | None
) -> Callable[[State, Settings, Batch], State]:
    def moved(state: State, settings: Settings, batch: Batch) -> State:
        def mean_loss(params: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
            variables = {"params": params} | state.statistics
            network = student
            if recipe.compression != "none":
                network, variables = compression.frozen(student, variables, recipe.compression)
            logits, statistics = models.train_logits(network, variables, batch.images, remat=remat)
            each = loss(recipe, settings, logits, batch)
            mean = each.mean()
            if batch.weights is not None:
                mean = (batch.weights * each).sum() / jnp.maximum(batch.weights.sum(), 1)
            return mean, state.statistics | statistics

        (value, statistics), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        optimizer = optim.create(
            recipe.optimizer,
            settings.learning_rate,
            settings.weight_decay,
            total_steps=settings.total_steps,
            warmup_steps=settings.warmup_steps,
            schedule=recipe.schedule,
            decay=recipe.decay,
            mesh=mesh,
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        last = jnp.stack([value, optax.tree.norm(gradients)])
        sums = state.loss_sum + value, last, jnp.maximum(state.largest, last)
        return State(state.step + 1, params, statistics, opt_state, *sums)

    # What was last is not read: kept among the arguments, its place in memory is taken again, as that of all the state.
    return jax.jit(moved, donate_argnums=0, keep_unused=True)


def loss(recipe: Recipe, settings: Settings, logits: jax.Array, batch: Batch) -> jax.Array:
    """How far logits (batch, classes) are from the targets, (batch,) float32: KL, and what else the recipe asks for."""
    if not recipe.has_teacher:
        return losses.cross_entropy(logits, batch.targets)
    options: dict[str, dict[str, Any]] = {
        "kl": {"temperature": settings.temperature, "scaled": recipe.temperature_squared},
        "hard": {"smoothing": recipe.label_smoothing},
    }
    distance = losses.DISTANCES[recipe.distance](logits, batch.targets, **options.get(recipe.distance, {}))
    if batch.labels is None:
        return distance
    share = settings.label_share
    return (1 - share) * distance + share * losses.cross_entropy(logits, batch.labels)


def initial_state(
    student: nn.Module,
    seed: int,
    image_shape: tuple[int, int, int],
    *,
    optimizer: str = "adam",
    start: models.Variables | None = None,
) -> State:
    """The state before the first step, from the student's first variables, or from a seed that draws them."""
    if start is None:
        start = models.init(student, jax.random.fold_in(jax.random.key(seed), 0), image_shape)
    statistics = {name: tree for name, tree in start.items() if name != "params"}
    params = jax.tree.map(jnp.asarray, start["params"])
    untuned = optim.create(optimizer, 1.0, 0.0, total_steps=1, warmup_steps=0)  # numbers do not change its state's form
    return State(jnp.zeros((), jnp.int32), params, statistics, untuned.init(params), jnp.zeros(()), *jnp.zeros((2, 2)))


def state_shapes(
    student: nn.Module, image_shape: tuple[int, int, int], optimizer: str = "adam", mesh: Mesh | None = None
) -> State:
    """The state of one student as shapes, dtypes and, with a mesh, where it lies; nothing is computed."""
    begun = functools.partial(initial_state, student, 0, image_shape, optimizer=optimizer)
    state: State = jax.eval_shape(begun, start=models.shapes(student, image_shape))
    if mesh is None:
        return state
    place = sharding.everywhere(mesh)
    laid: State = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state)
    return laid
