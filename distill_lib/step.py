"""One training step: render the views, ask the teacher, move the student."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_lib import losses, models, optim, views


class State(NamedTuple):
    """What a step changes: steps done, parameters, optimiser state and the sum of losses since the last report."""

    step: jax.Array
    params: dict
    opt_state: Any
    loss_sum: jax.Array


class Settings(NamedTuple):
    """The numbers of a recipe that do not change the step's program, so that seeds and grids compile it only once."""

    view_key: jax.Array
    learning_rate: jax.Array
    weight_decay: jax.Array
    temperature: jax.Array
    total_steps: jax.Array
    warmup_steps: jax.Array


@dataclass(frozen=True)
class Program:
    """Everything that the step's program depends on; runs that share it share the compiled step.

    Attributes:
        policy: a key of `views.POLICIES` or `views.BASELINES`.
        student: the student's module.
        teacher: the teacher's module, if it is asked in every step.
        num_classes: length of the logits.
        batch_size: images a step.
        resolution: height and width of the rendered views, in pixels.
        mixup: "batch" or "example".
        crop_area: smallest and largest area of an inception crop.
        whole: share of inception crops that are replaced by the whole image.
    """

    policy: str
    student: nn.Module
    teacher: nn.Module | None
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
    key = jax.random.fold_in(jax.random.key(seed), 0)
    params = _initialiser(student, image_shape)(key)
    opt_state = optim.adam(1.0, 0.0, total_steps=1, warmup_steps=0).init(params)
    return State(jnp.zeros((), jnp.int32), params, opt_state, jnp.zeros(()))


def settings(
    seed: int, *, learning_rate: float, weight_decay: float, temperature: float, total_steps: int, warmup_steps: int
) -> Settings:
    """The settings of a run as arrays; views are drawn from a key of their own."""
    return Settings(
        view_key=jax.random.fold_in(jax.random.key(seed), 1),
        learning_rate=jnp.float32(learning_rate),
        weight_decay=jnp.float32(weight_decay),
        temperature=jnp.float32(temperature),
        total_steps=jnp.int32(total_steps),
        warmup_steps=jnp.int32(warmup_steps),
    )


@functools.lru_cache(maxsize=64)
def compiled(program: Program) -> Callable[..., State]:
    """The jitted step of a program; the state it is given is donated."""
    return jax.jit(build(program), donate_argnums=0)


def build(program: Program) -> Callable[..., State]:
    """Builds the training step.

    Args:
        program: what the step does.

    Returns:
        A function of (state, settings, images, targets, teacher parameters, indices) to the next state. `images` is the
        whole training set (n, height, width, colours) uint8, `targets` its labels (n,), or a fixed teacher's outputs
        (n, classes); `indices` (batch,) says which images the step uses.
    """

    def step(
        state: State,
        settings: Settings,
        images: jax.Array,
        targets: jax.Array,
        teacher_params: dict,
        indices: jax.Array,
    ) -> State:
        key = jax.random.fold_in(settings.view_key, state.step)
        shown, wanted = _lesson(program, key, images[indices], targets[indices], teacher_params)

        def mean_loss(params: dict) -> jax.Array:
            logits = models.logits(program.student, params, shown)
            if views.policy(program.policy).teacher is None:
                return losses.cross_entropy(logits, wanted).mean()
            return losses.kl(logits, wanted, temperature=settings.temperature).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        transform = optim.adam(
            settings.learning_rate,
            settings.weight_decay,
            total_steps=settings.total_steps,
            warmup_steps=settings.warmup_steps,
        )
        updates, opt_state = transform.update(gradients, state.opt_state, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        return State(state.step + 1, params, opt_state, state.loss_sum + loss)

    return step


def _lesson(
    program: Program, key: jax.Array, images: jax.Array, targets: jax.Array, teacher_params: dict
) -> tuple[jax.Array, jax.Array]:
    """What the student is shown (batch, size, size, colours), and what it should answer (batch, classes)."""
    policy = views.policy(program.policy)
    teacher_view, student_view = views.pair(
        key,
        policy,
        program.batch_size,
        mixup=program.mixup,
        area=program.crop_area,
        whole=program.whole,
        image_aspect=images.shape[2] / images.shape[1],
    )
    shown = views.render(images, student_view, program.resolution)
    if policy.relation == "none":
        return shown, views.mix(jax.nn.one_hot(targets, program.num_classes), student_view)
    if policy.relation == "fixed":
        return shown, targets
    assert program.teacher is not None
    same = teacher_view is student_view
    seen = shown if same else views.render(images, teacher_view, program.resolution)
    return shown, models.logits(program.teacher, teacher_params, seen)


@functools.lru_cache(maxsize=64)
def _initialiser(student: nn.Module, image_shape: tuple[int, int, int]) -> Callable[[jax.Array], dict]:
    return jax.jit(lambda key: student.init(key, jnp.zeros((1, *image_shape)))["params"])
