"""The programs of a training step and of evaluation, lowered for devices that need not be there, from a recipe."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distill_lib import datasets, models, sharding, teachers, views
from distill_lib.models import flops
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.recipes import Recipe
from distill_lib.train import step
from distill_lib.views import Crops, Images

Program = tuple[Callable[[], Any], int, int, int]
"""What lowers it, bytes of its largest collective, multiply-adds an image, and arrays that it updates in place."""


def lowered(recipe: Recipe, mesh: Mesh) -> dict[str, Program]:
    """The programs of a recipe by name: both halves of a step, the second with rematerialisation, and evaluation."""
    dataset = datasets.get(recipe.dataset)
    student = models.create(recipe.student, dataset.num_classes, recipe.dtype)
    image = (recipe.resolution, recipe.resolution, dataset.channels)
    state, (split, whole) = step.state_shapes(student, image, recipe.optimizer, mesh), _shapes(mesh)
    real, count = whole((), jnp.float32), whole((), jnp.int32)
    settings = step.Settings(real, real, real, real, count, count)
    shown, wanted = (recipe.batch_size, *image), (recipe.batch_size, dataset.num_classes)
    given = step.Batch(split(shown, jnp.float32), split(wanted, jnp.float32))
    # The gradients' sum; Shampoo gathers its roots besides. All else is one image that a roll sends on, and the like.
    student_variables = jax.eval_shape(lambda state: state.variables, state)
    summed = (student_variables, state.opt_state if recipe.optimizer == "shampoo" else student_variables)
    gradients = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(summed))
    image_bytes = 4 * math.prod(image) + 4 * dataset.num_classes
    macs, leaves = flops.macs(student, image), len(jax.tree.leaves(state))

    def learning(remat: bool) -> Program:
        program: Any = step.learn(student, recipe, remat, mesh)
        return lambda: program.lower(state, settings, given), gradients, 3 * macs, leaves

    def evaluation() -> Any:
        variables = jax.tree.map(lambda leaf: whole(leaf.shape, leaf.dtype), student_variables)
        ask = jax.jit(lambda variables, images: models.logits(student, variables, views.normalize(images)))
        return ask.lower(variables, split(shown, jnp.uint8))

    teacher_macs, teaching = _teaching(recipe, dataset, mesh)
    return {
        "views and teacher": (teaching, image_bytes, teacher_macs, 0),
        "student": learning(False),
        "student, rematerialised": learning(True),
        "evaluation": (evaluation, image_bytes, macs, 0),
    }


def _teaching(recipe: Recipe, dataset: datasets.Dataset, mesh: Mesh) -> tuple[int, Callable[[], Any]]:
    """Multiply-adds of a teacher's answer, and what lowers the first half of a step."""
    split, whole = _shapes(mesh)
    relation, classes, batch = views.policy(recipe.policy).relation, dataset.num_classes, recipe.batch_size
    macs, side, ensemble = 0, recipe.resolution, None
    asked: tuple[Any, ...] = ()
    if relation in ("same", "independent"):
        ((name, own),) = teachers.parts(recipe.teacher)
        model, _ = teachers.network(name)
        network, side = models.create(model, classes, recipe.dtype), own or recipe.resolution
        shape = (side, side, dataset.channels)
        # zeros of NumPy, because BatchNorm is folded on the host
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), models.shapes(network, shape))
        folded, variables = network.fold(zeros)
        asked = (jax.tree.map(lambda leaf: whole(leaf.shape, leaf.dtype), variables),)
        macs, ensemble = flops.macs(network, shape), Ensemble((Member(folded, own),))
    program: Any = step.teach(recipe, ensemble, classes)
    key = jax.eval_shape(lambda: views.view_key(0))

    def arrays(place: Callable[..., Any], count: int, *sides: int) -> list[Any]:
        """Targets of so many images, and their pixels at each side."""
        targets = place((count, classes), jnp.float32) if relation == "fixed" else place((count,), jnp.int32)
        return [targets, *(place((count, each, each, dataset.channels), jnp.uint8) for each in sides)]

    def lower() -> Any:
        if dataset.origin == "embedded":  # of others the host makes crops
            count = datasets.training_images(dataset, recipe.train_images, mock=False) or batch
            targets, pixels = arrays(whole, count, recipe.resolution)
            given: Any = Images(pixels, targets, indices=split((batch,), jnp.int32))
        else:
            targets, pixels, others = arrays(split, batch, recipe.resolution, side)
            differs = side != recipe.resolution or relation == "independent"
            given = Crops(pixels, {side: others} if differs else {}, targets)
        number, temperature = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
        return program.lower(whole(key.shape, key.dtype), number, given, asked, temperature)

    return macs, lower


def _shapes(mesh: Mesh) -> tuple[Callable[..., Any], Callable[..., Any]]:
    placements = (sharding.split(mesh), sharding.everywhere(mesh))
    split, whole = (functools.partial(jax.ShapeDtypeStruct, sharding=placement) for placement in placements)
    return split, whole
