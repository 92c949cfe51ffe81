"""Segmentation of scenes of the embedded photographs: a dense student learns from a dense teacher, without labels.

Views act on the pixels and on the map of logits alike. Beyer et al., CVPR 2022, ask the question for classes alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import datasets, views, weights
from distill_lib.errors import DistillError, unknown
from distill_lib.models.bit import RootBlock, Stage
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.models.layers import GroupNorm
from distill_lib.recipes import Recipe
from distill_lib.teachers import Teacher
from distill_lib.views import View

CANVAS, VIEW = 56, 32  # sides in pixels of a scene, and of the crops that students are shown
PHOTOGRAPHS = (3, 5)  # in a scene, at least and at most
BRIGHT = 32  # grey from which on a pixel is part of an item; others are background, the last class
CLASSES = 11
SCENES = {"train": 1_020, "validation": 250, "test": 500, "teacher": 8_000}
TEACHER = Path(__file__).with_name("segmentation.npz")
POLICIES = {
    "labels": "labels",
    "fix/rs": "fixed teacher",
    "ind/ic": "independent crops",
    "same/ic": "consistent teaching",
    "mix": "function matching",
}
"""What is compared, in words; maps of fixed and independent teachers move along.

A teacher's crop is that of `views.POLICIES`, and every student is shown inception crops.
"""
LENGTHS = {"short": 8.0, "long": 32.0}  # epochs
_STUDENT, _TEACHER = "dense_w8", "dense_w16"
_SMOKE: dict[str, Any] = {"epochs": 1, "batch_size": 8, "warmup_steps": 1, "evaluations": 2}


Ask = Callable[[jax.Array], jax.Array]
"""A teacher: images (batch, height, width, 1), float32 in [-1, 1], to logits (batch, height, width, classes)."""


class Scenes(NamedTuple):
    """Photographs in one picture."""

    images: np.ndarray  #: uint8 (n, CANVAS, CANVAS, 1)
    truth: np.ndarray  #: int32 (n, CANVAS, CANVAS), the class of each pixel


class Dense(nn.Module):
    """A BiT without a mean over the image: units at a half and a quarter of the resolution, whose logits are added."""

    width: int
    classes: int = CLASSES
    units: tuple[int, int] = (1, 2)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps images (batch, height, width, channels), sides multiples of 4, to logits of each pixel."""
        x, logits = RootBlock(self.width, 5, 2, False, False, name="root_block")(images), jnp.zeros(())
        for index, units in enumerate(self.units):
            x = Stage(units, self.width * 2**index, index + 1, 8, False, name=f"block{index + 1}")(x)
            features = nn.relu(GroupNorm(8, name=f"norm{index + 1}")(x))
            own = nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name=f"head{index + 1}")(features)
            logits = logits + jax.image.resize(own, (*images.shape[:3], self.classes), "linear")
        return logits


@functools.cache
def scenes(split: str, count: int, *, mock: bool = False) -> Scenes:
    """The first `count` scenes of a split of `SCENES`, the same ones each time; "teacher" wants the original files."""
    name = "fashion_teacher" if split == "teacher" else "fashion"
    photographs = datasets.arrays(name, "train" if split == "teacher" else split, mock=mock)
    side = photographs.images.shape[1]
    images = np.zeros((count, CANVAS, CANVAS), np.uint8)
    truth = np.full(images.shape, CLASSES - 1, np.int32)
    for scene, (image, classes) in enumerate(zip(images, truth, strict=True)):
        draw = np.random.default_rng([list(SCENES).index(split), scene])
        for number in draw.integers(len(photographs.labels), size=draw.integers(PHOTOGRAPHS[0], PHOTOGRAPHS[1] + 1)):
            top, left = draw.integers(CANVAS - side + 1, size=2)
            place = np.s_[top : top + side, left : left + side]
            photograph = photographs.images[number, ..., 0]
            above = photograph > np.maximum(image[place], BRIGHT - 1)
            classes[place][above] = photographs.labels[number]
            image[place] = np.maximum(image[place], photograph)
    return Scenes(images[..., None], truth)


def cropped(whole: Scenes, recipe: Recipe) -> Scenes:
    """A crop of each scene, as students are shown them: float32 images, and the likeliest class of each pixel."""
    view = views.sample(jax.random.key(0), len(whole.images), area=recipe.crop_area)
    truth = views.render(jax.nn.one_hot(whole.truth, CLASSES), view, VIEW).argmax(-1)
    return Scenes(np.asarray(views.render(whole.images, view, VIEW)), np.asarray(truth))


def plan(
    variant: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    policies: Sequence[str] = tuple(POLICIES),
    dataset: str = "fashion",
) -> list[Recipe]:
    """A recipe for each length, or the one of `LENGTHS` or "smoke", policy and seed; seeds share their views.

    DistillError for other lengths and policies, for photographs that are not those of "fashion", and without a seed.
    """
    lengths = [variant] if variant else [*LENGTHS]
    asked = {"dataset": ([dataset], ["fashion"]), "variant": (lengths, [*LENGTHS, "smoke"])}
    for kind, (names, known) in (asked | {"policy": (policies, [*POLICIES])}).items():
        for name in set(names) - set(known):
            raise unknown(kind, name, known)
    if not seeds:
        raise DistillError("there is nothing to run: name at least one seed.")
    usual: dict[str, Any] = {"dataset": "scenes", "student": _STUDENT, "teacher": "scenes", "resolution": VIEW}
    usual |= {"batch_size": 16, "temperature": 1, "learning_rate": 0.01, "weight_decay": 1e-4, "warmup_steps": 100}
    usual |= {"crop_area": (0.25, 1), "evaluations": 10, "view_seed": seeds[0]}
    recipes = []
    for length, policy, seed in itertools.product(lengths, policies, seeds):
        changes = _SMOKE if length == "smoke" else {"epochs": LENGTHS[length]}
        recipes.append(Recipe(**usual | changes, variant=length, policy=policy, seed=seed))
    return recipes


def teacher_recipe() -> Recipe:
    """How `TEACHER` was made: from labels, with the teacher's own photographs."""
    (recipe,) = plan("long", [0], ["labels"])
    return dataclasses.replace(recipe, variant="teacher", student=_TEACHER, epochs=10, evaluations=5, view_seed=None)


def network(name: str) -> Dense:
    """The network of a recipe's student, such as "dense_w8"."""
    return Dense(int(name.removeprefix("dense_w")))


@functools.cache
def teacher() -> Teacher:
    """The embedded dense teacher; its `logits` are those of each pixel of images (batch, side, side, 1)."""
    variables, asked = weights.unpack(weights.load_npz(TEACHER)), Ensemble((Member(network(_TEACHER)),))
    return Teacher("scenes", asked, (variables,), weights.sha256(TEACHER), channels=1)


def moved(maps: jax.Array, seen: View, shown: View, size: int) -> tuple[jax.Array, jax.Array]:
    """Moves maps of a view that a teacher has seen to the view that a student is shown, bilinearly.

    Maps (batch, height, width, classes) become (batch, size, size, classes), and beside them comes where they reach,
    (batch, size, size) of 0 and 1: of another crop nothing is known outside of it.
    """

    def move(values: jax.Array, turned: jax.Array, box: jax.Array, mirrored: jax.Array) -> jax.Array:
        sides = jnp.asarray(values.shape[:2])
        values = jnp.where(turned, values[:, ::-1], values)
        scale = size / (box[2:] * sides)
        shape = (size, size, values.shape[-1])
        values = jax.image.scale_and_translate(
            values, shape, (0, 1), scale, -box[:2] * sides * scale, "linear", antialias=False
        )
        return jnp.where(mirrored, values[:, ::-1], values)

    corner, extent = (shown.box[:, :2] - seen.box[:, :2]) / seen.box[:, 2:], shown.box[:, 2:] / seen.box[:, 2:]
    views_of = (seen.flip, jnp.concatenate([corner, extent], axis=-1), shown.flip)
    reach = jax.vmap(move)(jnp.ones((*maps.shape[:3], 1)), *views_of)[..., 0]
    return jax.vmap(move)(maps, *views_of), (reach > 0.5).astype(jnp.float32)


def targets(
    recipe: Recipe, key: jax.Array, images: jax.Array, known: jax.Array, ask: Ask | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a student is shown of scenes (batch, CANVAS, CANVAS, 1), its targets, and a weight for each pixel.

    `known` are the truth's one-hot maps for labels, and a fixed teacher's logits for it; others are asked.
    """
    policy = views.policy(recipe.policy)
    options: dict[str, Any] = {"area": recipe.crop_area, "mixup": recipe.mixup if policy.mix else None}
    shown = seen = views.sample(key, len(images), **options)
    pixels = views.render(images, shown, VIEW)
    if policy.relation == "none":
        return pixels, views.render(known, shown, VIEW), jnp.ones(pixels.shape[:3])
    if policy.relation == "fixed":
        return pixels, *moved(known, views.still(len(images)), shown, VIEW)
    assert ask is not None
    if policy.relation == "same":
        return pixels, ask(pixels), jnp.ones(pixels.shape[:3])
    seen = views.sample(jax.random.fold_in(key, 0), len(images), **options)
    return pixels, *moved(ask(views.render(images, seen, VIEW)), seen, shown, VIEW)
